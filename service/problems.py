"""Errors that are told to who asked. ``handlers`` makes replies of them.

Without FastAPI: commands, which start anew each time, raise them too.
"""

from typing import Any

from gpq.errors import BrokenImage, EmptyFile, ImageError, TooManyPixels, UnknownFormat
from service.settings import RETRY_AFTER_SECONDS


class Problem(Exception):
    """An error reply. ``more`` is added to the body, ``headers`` to the reply."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers, self.more = headers or {}, more


def busy(detail: str) -> Problem:
    """429 with Retry-After."""
    return Problem(429, "busy", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def unavailable(detail: str) -> Problem:
    """503 with Retry-After."""
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def of_image(error: ImageError) -> Problem:
    """The reply to a picture that cannot be used: 400, 413 or 415."""
    match error:
        case EmptyFile():
            return Problem(400, "empty-file", str(error))
        case UnknownFormat():
            return Problem(415, "unknown-format", str(error))
        case TooManyPixels():
            return Problem(413, "too-many-pixels", str(error))
        case BrokenImage():
            return Problem(400, "broken-image", str(error))
    return Problem(400, "bad-image", str(error))
