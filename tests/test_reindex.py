import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.originals import open_originals
from service.reindex import Reindex
from service.store import Store
from tests import commands, waiting
from tests.conftest import make_artifact
from tests.images import tree

PICTURES = 120


class Pages:
    """A store of five pages of pictures that take a while to encode."""

    def __init__(self) -> None:
        self.models = self
        self.left = 5

    def missing(self, *_: int) -> list[Any]:
        self.left -= 1
        time.sleep(0.02)
        return [SimpleNamespace(seq=1, id="a", sha256="0" * 64)] if self.left >= 0 else []

    def fill(self, *_: object) -> None: ...

    def settle(self, *_: object) -> None: ...


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_it_leaves_the_rest_of_the_time_to_searches(tmp_path: Path, share: float) -> None:
    waits: list[float] = []
    stop = threading.Event()
    stop.wait = waits.append  # type: ignore[assignment]
    run: Any = SimpleNamespace(stop=stop, advance=lambda *given: None)
    encoder: Any = SimpleNamespace(
        accept=lambda contents, models: [*contents], encode=lambda pictures, model: []
    )
    store: Any = Pages()
    started = time.monotonic()
    row: Any = SimpleNamespace(number=1, id="m")
    model: Any = None
    Reindex(store, encoder, open_originals(str(tmp_path)), share).run(row, model, run)
    worked = time.monotonic() - started
    assert len(waits) == 5
    assert sum(waits) == pytest.approx(worked * (1 / share - 1), rel=0.3)


def test_one_that_is_killed_goes_on_where_it_was(random_model: Path, tmp_path: Path) -> None:
    tree(tmp_path / "in", *(f"{n:03}.png" for n in range(PICTURES)))
    make_artifact(tmp_path / "other", seed=9)
    url = f"sqlite:///{tmp_path}/gpq.db"
    places = {"database_url": url, "image_store": tmp_path / "images", "folder": tmp_path}
    commands.service("import", str(tmp_path / "in"), model=random_model, **places)
    commands.service("models", "add", str(tmp_path / "other"), **places)
    store = Store(url)
    number = store.models.all()[1].number
    first = commands.start("models", "reindex", "--share", "0.02", **places)
    waiting.until(lambda: store.models.count_missing(number) < PICTURES, seconds=120)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    left = store.models.count_missing(number)
    assert 0 < left < PICTURES
    waiting.until(lambda: store.jobs.page(1)[0].state == "stopped", seconds=60)
    again = commands.service("models", "reindex", "--share", "1", **places)
    assert f"done: {left} of {left} pictures" in again
    assert store.models.count_missing(number) == 0 and store.models.all()[1].whole
    store.close()
