from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import Server


@pytest.fixture(scope="module")
def server(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service for a module, with a small model; tests use ids of their own."""
    folder = tmp_path_factory.mktemp("service")
    with Server(folder, model=random_model) as running:
        yield running
