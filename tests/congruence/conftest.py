"""The same tests on SQLite and on a real Postgres server that they start themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Postgres, binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server of this run's own; skipped by name where its programs are not installed."""
    if binaries() is None:
        pytest.skip("Postgres is not installed")
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/gpq.db"
    url: str = request.getfixturevalue("postgres").create_database()
    return url
