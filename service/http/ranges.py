"""Requests for a part of something (RFC 9110, 14): one range of bytes.

What else may stand in Range is ignored, as it may be: several ranges, other units, nonsense.
"""

import re

from starlette.datastructures import Headers

from service.problems import Problem

BYTES = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


def wanted(headers: Headers, etag: str, size: int) -> range | None:
    """The places asked for of ``size`` bytes; None for all. Raises Problem 416."""
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
            f"Range: there are no such bytes; it has {size}",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return range(start, stop)
