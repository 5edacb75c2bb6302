import pytest

from gpq import errors as gpq_errors
from service import errors
from service.errors import ServiceError
from service.http.problems import REPLIES, problem_of

EXPECTED = {
    gpq_errors.EmptyFile: (400, "empty-file"),
    gpq_errors.UnknownFormat: (415, "unknown-format"),
    gpq_errors.TooManyPixels: (413, "too-many-pixels"),
    gpq_errors.DecodeLimit: (413, "decode-limit"),
    gpq_errors.BrokenImage: (400, "broken-image"),
    gpq_errors.ImageError: (400, "bad-image"),
    gpq_errors.ArtifactError: (422, "invalid-model"),
    errors.InvalidId: (422, "invalid-id"),
    errors.DuplicateId: (422, "duplicate-id"),
    errors.InvalidMetadata: (422, "invalid-metadata"),
    errors.MetadataTooLarge: (422, "metadata-too-large"),
    errors.TooManyResults: (422, "too-many-results"),
    errors.NoSuchField: (404, "no-such-field"),
    errors.InvalidCursor: (422, "invalid-cursor"),
    errors.InvalidFilter: (422, "invalid-filter"),
    errors.UnknownClasses: (422, "unknown-classes"),
    errors.QueryOverflow: (422, "query-overflow"),
    errors.SourceError: (422, "invalid-source"),
    errors.NoSuchImage: (404, "no-such-image"),
    errors.NoOriginal: (404, "no-original"),
    errors.NoThumbnail: (404, "no-thumbnail"),
    errors.NoSuchModel: (404, "no-such-model"),
    errors.NoSuchJob: (404, "no-such-job"),
    errors.NoSuchKey: (404, "no-such-key"),
    errors.InvalidRequest: (422, "invalid-field"),
    errors.ModelError: (409, "conflict"),
    errors.JobError: (409, "conflict"),
    errors.DumpError: (409, "conflict"),
    errors.CopiesOff: (409, "copies-off"),
    errors.TooMuchGone: (409, "conflict"),
    errors.FetchOff: (409, "fetch-off"),
    errors.FetchRefused: (422, "fetch-refused"),
    errors.FetchFailed: (422, "fetch-failed"),
    errors.Busy: (429, "busy"),
    errors.Unavailable: (503, "unavailable"),
    errors.WaitedTooLong: (503, "unavailable"),
    errors.MaskOutdated: (503, "unavailable"),
    errors.ModelChanged: (503, "unavailable"),
    errors.SlowBody: (408, "slow-body"),
    errors.ClientGone: (400, "client-gone"),
    errors.StorageFull: (507, "disk-full"),
}
NOT_REPLIED = {errors.NewerSchema}  # raised at start only


WITHOUT_ARGUMENTS = {
    errors.WaitedTooLong, errors.ClientGone, errors.MaskOutdated, errors.CopiesOff, errors.FetchOff,
}  # fmt: skip


def leaves(kind: type[Exception]) -> set[type[Exception]]:
    below = kind.__subclasses__()
    return set().union(*map(leaves, below)) if below else {kind}


def make(kind: type[Exception]) -> Exception:
    if kind in WITHOUT_ARGUMENTS:
        return kind()
    if kind is errors.TooMuchGone:
        return kind(3, 4)
    return kind(7) if kind in (errors.NoSuchJob, errors.NoSuchKey) else kind("why")


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_each_error_has_a_status_and_a_code(kind: type[ServiceError]) -> None:
    problem = problem_of(make(kind))  # type: ignore[arg-type]
    assert problem is not None
    assert (problem.status, problem.code) == EXPECTED[kind]
    retried = problem.status in (429, 503)
    assert problem.headers == ({"Retry-After": "1"} if retried else {})
    assert problem.detail == str(make(kind))


def test_every_error_has_a_reply() -> None:
    assert leaves(ServiceError) - NOT_REPLIED <= EXPECTED.keys()
    assert {kind for kind, _, _ in REPLIES} - {errors.Refused} <= EXPECTED.keys()
    assert problem_of(gpq_errors.ScanError("why")) is None
