"""Maps errors to HTTP replies: status, code and Retry-After of an RFC 9457 problem."""

from typing import Any

from gpq import errors as gpq_errors
from gpq.errors import GPQError
from service import errors
from service.errors import ServiceError

RETRY_AFTER_SECONDS = 1  # how long 429 and 503 ask a client to wait


class Problem(Exception):
    """An error reply. ``more`` is added to its body, ``headers`` to the reply."""

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


def outside(prefix: str, where: str = "") -> Problem:
    """Returns the reply to a request for images with other ids than those of a key's prefix."""
    return Problem(403, "prefix", f"{where}this key is for ids that begin with {prefix!r}")


# The status and code of each error. The first class that an error is an instance of counts.
REPLIES: tuple[tuple[type[Exception], int, str], ...] = (
    (gpq_errors.EmptyFile, 400, "empty-file"),
    (gpq_errors.UnknownFormat, 415, "unknown-format"),
    (gpq_errors.TooManyPixels, 413, "too-many-pixels"),
    (gpq_errors.DecodeLimit, 413, "decode-limit"),
    (gpq_errors.BrokenImage, 400, "broken-image"),
    (gpq_errors.ImageError, 400, "bad-image"),
    (gpq_errors.ArtifactError, 422, "invalid-model"),
    (errors.InvalidId, 422, "invalid-id"),
    (errors.DuplicateId, 422, "duplicate-id"),
    (errors.InvalidMetadata, 422, "invalid-metadata"),
    (errors.MetadataTooLarge, 422, "metadata-too-large"),
    (errors.InvalidFilter, 422, "invalid-filter"),
    (errors.UnknownClasses, 422, "unknown-classes"),
    (errors.QueryOverflow, 422, "query-overflow"),
    (errors.FetchRefused, 422, "fetch-refused"),
    (errors.FetchFailed, 422, "fetch-failed"),
    (errors.InvalidCursor, 422, "invalid-cursor"),
    (errors.TooManyResults, 422, "too-many-results"),
    (errors.SourceError, 422, "invalid-source"),
    (errors.NoSuchImage, 404, "no-such-image"),
    (errors.NoOriginal, 404, "no-original"),
    (errors.NoThumbnail, 404, "no-thumbnail"),
    (errors.NoSuchModel, 404, "no-such-model"),
    (errors.NoSuchJob, 404, "no-such-job"),
    (errors.NoSuchField, 404, "no-such-field"),
    (errors.NoSuchKey, 404, "no-such-key"),
    (errors.InvalidRequest, 422, "invalid-field"),
    (errors.CopiesOff, 409, "copies-off"),
    (errors.FetchOff, 409, "fetch-off"),
    (errors.Refused, 409, "conflict"),
    (errors.Busy, 429, "busy"),
    (errors.Unavailable, 503, "unavailable"),
    (errors.SlowBody, 408, "slow-body"),
    (errors.ClientGone, 400, "client-gone"),
    (errors.StorageFull, 507, "disk-full"),
)
RETRIED = errors.Busy, errors.Unavailable


def problem_of(error: ServiceError | GPQError) -> Problem | None:
    """Returns the reply to an error; None if it has none of its own, so that it becomes a 500."""
    for kind, status, code in REPLIES:
        if isinstance(error, kind):
            retried = isinstance(error, RETRIED)
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if retried else {}
            return Problem(status, code, str(error), headers=headers)
    return None
