"""Reads the headers of requests."""

from starlette.datastructures import Headers

MOST_BYTES = 2**62  # no body is as large


def announced_bytes(headers: Headers) -> int | None:
    """Returns the Content-Length, or None without a number; larger ones become MOST_BYTES."""
    digits = headers.get("content-length", "")
    if not (digits.isascii() and digits.isdecimal()):
        return None
    # Python refuses to convert thousands of digits.
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= len(str(MOST_BYTES)) else MOST_BYTES
