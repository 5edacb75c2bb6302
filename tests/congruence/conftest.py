from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.server import Server
from service.database.migrate import migrate
from service.database.store import Store

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A store over an empty database whose active model is ``m``."""
    opened = Store(database_url)
    migrate(opened.database)
    opened.models.adopt("m", FILES)
    yield opened
    opened.close()


@pytest.fixture
def servers(random_model: Path, database_url: str, tmp_path: Path) -> Iterator[list[Server]]:
    """Two services over one database."""
    started = []
    with ExitStack() as stack:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            server = Server(tmp_path / name, model=random_model, database_url=database_url,
                            image_store=tmp_path / "originals")  # fmt: skip
            started.append(stack.enter_context(server))
        yield started
