"""Fixtures for all tests. What a group needs is imported only where it is used."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from harness.models import make_artifact
from harness.server import Server

if TYPE_CHECKING:
    from harness.postgres import Postgres

HERE = Path(__file__).parent

if not torch.cuda.is_available():  # kernels ask when they are first imported
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI a skipped test is a failed one: everything it needs can be installed there."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labeled/, train/ and test/ of CIFAR-10 pictures, <class>/NNNN.jpg."""
    root = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(HERE / "data" / "cifar10-sample.tar.xz") as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact of random weights."""
    folder = tmp_path_factory.mktemp("random-model")
    make_artifact(folder)
    return folder


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Postgres]":
    """A server of this run's own; skipped by name where its programs are not installed."""
    from harness.postgres import Postgres, binaries  # beside a card there may be no driver

    if binaries() is None:
        pytest.skip("Postgres is not installed")
    with Postgres() as server:
        yield server


def new_database(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of an empty database of the kind ``request.param``."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/gpq.db"
    url: str = request.getfixturevalue("postgres").create_database()
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return new_database(request, tmp_path)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One service for a module and a database; tests use ids of their own."""
    folder = tmp_path_factory.mktemp("service")
    url = new_database(request, folder)
    with Server(folder, model=random_model, database_url=url) as running:
        yield running
