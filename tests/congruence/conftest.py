from collections.abc import Iterator

import pytest

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
