"""Fixtures for all tests. Packages that only some tests need are imported inside fixtures."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpq.system.device import cuda_missing
from harness.images import extract_sample
from harness.models import make_artifact
from harness.server import Server

if TYPE_CHECKING:
    from harness.postgres import Postgres

if cuda_missing():  # the kernels read this when they are first imported
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Makes a skipped test fail in CI, where everything that tests need can be installed."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the CIFAR-10 sample, see ``extract_sample``."""
    root = tmp_path_factory.mktemp("cifar10")
    extract_sample(root)
    return root


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of an artifact with random weights."""
    folder = tmp_path_factory.mktemp("random-model")
    make_artifact(folder)
    return folder


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Postgres]":
    """Runs a Postgres server for all tests. Skips the test if Postgres is not installed."""
    from harness.postgres import Postgres, binaries  # psycopg may be missing beside a GPU

    if binaries() is None:
        pytest.skip("Postgres is not installed")
    with Postgres() as server:
        yield server


def new_database(request: pytest.FixtureRequest, folder: Path) -> str:
    """Returns the URL of an empty database of the kind that ``request.param`` names."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/gpq.db"
    url: str = request.getfixturevalue("postgres").create_database()
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns the URL of an empty database; the test runs on SQLite and on Postgres."""
    return new_database(request, tmp_path)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Runs a service per module and kind of database. Tests share it, so each uses its own ids."""
    folder = tmp_path_factory.mktemp("service")
    url = new_database(request, folder)
    with Server(folder, model=random_model, database_url=url) as running:
        yield running


@pytest.fixture
def locked_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every folder named locked unreadable; permissions would not stop root."""
    scan = os.scandir

    def refused(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
