"""Tests of what a job says about its end."""

from contextlib import closing
from pathlib import Path

import pytest

from service.database.migrate import migrate
from service.database.store import Store
from service.errors import SourceError
from service.jobs.progress import JobRun


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (PermissionError(13, "Permission denied", "/srv/images/a"), "Permission denied; the log"),
        (SourceError("m.csv: is not UTF-8"), "m.csv: is not UTF-8"),
    ],
)
def test_a_failed_job_tells_why_without_paths(
    tmp_path: Path, error: Exception, detail: str
) -> None:
    store = Store(f"sqlite:///{tmp_path}/gpq.db")
    migrate(store.database)
    with closing(store):
        number = store.jobs.request("import", "in", by_service=True)
        with pytest.raises(type(error)), JobRun(store.jobs, number):
            raise error
        job = store.jobs.get(number)
    assert job is not None and job.state == "failed"
    assert job.detail.startswith(detail) and "/srv" not in job.detail
