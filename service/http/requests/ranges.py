"""Parses requests for one range of bytes (RFC 9110, 14).

Other values of Range are ignored, as the RFC allows: several ranges, other units, nonsense.
"""

import re

from starlette.datastructures import Headers

from service.http.problems import Problem

BYTES = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


def requested(headers: Headers, etag: str, size: int) -> range | None:
    """Returns the requested range of ``size`` bytes; None for all of them. Raises Problem 416."""
    match = BYTES.fullmatch(headers.get("range", "").strip())
    if match is None or headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if not (first or last) or (first and last and int(first) > int(last)):
        return None
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        raise Problem(
            416,
            "no-such-range",
            f"Range: no such bytes; the file has {size}",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return range(start, stop)
