import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import commands
from harness.images import png, tree
from harness.models import fields, make_artifact
from harness.server import Server
from service.database.records import MissingCode
from service.database.store import Store
from service.jobs.reindexing import Reindex
from service.jobs.throttle import Throttle
from service.originals.originals import open_originals
from tests import waiting

IMAGES = 120


class Pages:
    """Replaces the models table by five pages of images that take a while to encode."""

    def __init__(self) -> None:
        self.left = 5

    def missing(self, *_: int) -> list[MissingCode]:
        self.left -= 1
        time.sleep(0.02)
        return [MissingCode(1, "a", "0" * 64)] if self.left >= 0 else []

    def fill(self, *_: object) -> None: ...

    def complete(self, *_: object) -> None: ...


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_reindex_leaves_the_rest_of_the_time_to_searches(tmp_path: Path, share: float) -> None:
    waits: list[float] = []
    stop = threading.Event()
    stop.wait = waits.append  # type: ignore[assignment]
    run: Any = SimpleNamespace(stop=stop, advance=lambda *given: None, say=lambda detail: None)
    decoder: Any = SimpleNamespace(decode_all=lambda contents, models: [*contents])
    encoder: Any = SimpleNamespace(encode=lambda images, model: [])
    models: Any = Pages()
    started = time.monotonic()
    row: Any = SimpleNamespace(number=1, id="m")
    model: Any = None
    throttle = Throttle(share, dict)
    originals = open_originals(str(tmp_path))
    Reindex(models, decoder, encoder, originals, throttle).run(row, model, run)
    worked = time.monotonic() - started
    assert len(waits) == 1 + 5
    assert sum(waits) == pytest.approx(worked * (1 / share - 1), rel=0.3)


def test_a_killed_reindex_continues_with_the_images_that_are_left(
    random_model: Path, tmp_path: Path
) -> None:
    tree(tmp_path / "in", *(f"{n:03}.png" for n in range(IMAGES)))
    make_artifact(tmp_path / "other", seed=9)
    url = f"sqlite:///{tmp_path}/gpq.db"
    settings = {"database_url": url, "image_store": tmp_path / "images", "folder": tmp_path}
    commands.service("import", str(tmp_path / "in"), model=random_model, **settings)
    commands.service("models", "add", str(tmp_path / "other"), **settings)
    store = Store(url)
    number = store.models.all()[1].number
    first = commands.start("models", "reindex", "--share", "0.02", **settings)
    waiting.until(lambda: store.models.count_missing(number) < IMAGES, seconds=120)
    waiting.until(lambda: store.jobs.page(1)[0].total == IMAGES)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    left = store.models.count_missing(number)
    assert 0 < left < IMAGES
    waiting.until(lambda: store.jobs.page(1)[0].state == "stopped", seconds=60)
    again = commands.service("models", "reindex", "--share", "1", **settings)
    assert f"done: {IMAGES} of {IMAGES} images" in again
    assert store.models.count_missing(number) == 0 and store.models.all()[1].complete
    store.close()


def test_a_reindex_measures_how_long_searches_take_without_it(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    make_artifact(tmp_path / "other", seed=9)
    settings = {"database_url": database_url, "image_store": tmp_path / "images"}
    ended = threading.Event()

    def search(server: Server) -> None:
        while not ended.wait(0.05):
            server.search(png(1)).raise_for_status()

    with Server(tmp_path, model=random_model, **settings) as server:
        server.index(*(png(n) for n in range(32))).raise_for_status()
        server.http.post("/models", files=fields(tmp_path / "other")).raise_for_status()
        searcher = threading.Thread(target=search, args=(server,))
        searcher.start()
        try:
            waiting.until(lambda: "search_p99_ms" in replica_of(server))
            job_url = server.http.post("/jobs/reindex").headers["Location"]
            resting = "rests to measure how long searches take without it"
            waiting.until(lambda: server.http.get(job_url).json()["detail"] == resting, seconds=60)
            waiting.until(lambda: server.http.get(job_url).json()["state"] == "done", seconds=60)
        finally:
            ended.set()
            searcher.join()
        job = server.http.get(job_url).json()
        assert (job["done"], job["failed"], job["detail"]) == (32, 0, "")


def replica_of(server: Server) -> dict[str, Any]:
    replica: dict[str, Any]
    (replica,) = server.http.get("/stats").json()["feed"]["replicas"]
    return replica
