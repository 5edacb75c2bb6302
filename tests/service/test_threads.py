import gc
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.model.model import Model
from gpq.scan.native import NativeScanner, missing
from gpq.system.openmp import spin_briefly
from gpq.system.processors import processors
from harness import ROOT
from harness.images import png
from harness.models import SHIPPED, make_artifact
from service.database.job_records import JobKind
from service.database.migrate import migrate
from service.database.records import Put
from service.database.store import Store
from service.decoding.decoder import DecodedImage
from service.jobs.progress import JobRun
from service.jobs.worker import work
from service.models import artifacts
from service.models.encoder import Encoder
from service.runtime import Runtime
from service.settings import Settings
from tests import waiting


def test_the_spin_count_is_set_before_torch_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = "import sys, service.cli.main; sys.exit('torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=Path(__file__).parent.parent.parent
    )
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "5"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The affinity of this process allows eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("max 100000", 8)],
)
def test_a_quota_limits_the_processors_of_a_container(
    tmp_path: Path, quota: str, expected: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert processors(tmp_path / "cpu.max") == expected


def test_the_affinity_decides_if_no_quota_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert processors(tmp_path / "none") == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processors(tmp_path / "none") == os.cpu_count()


def test_the_network_uses_all_processors_and_decoding_at_most_four(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().encode_threads == processors()
    assert Settings().decode_threads == min(4, processors())
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert Settings().decode_threads == 1


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_scan_uses_one_thread_for_each_allowed_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = np.zeros((0, 1), np.uint8)
    assert NativeScanner(empty, 1).threads == min(8, processors())
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert NativeScanner(empty, 1).threads == 1


class Threads:
    """A network that records which threads run it. ``together``: how many batches must meet."""

    engine, precision, device = "openvino", "float32", "cpu"
    batches = (1,)

    def __init__(self, dimension: int, together: int) -> None:
        self.seen: set[str] = set()
        self._dimension, self._meeting = dimension, threading.Barrier(together)

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._meeting.wait(10)
        self.seen.add(threading.current_thread().name)
        return np.ones((len(pixels), self._dimension), np.float32)


def watched(folder: Path, together: int) -> tuple[Model, Threads]:
    model = engines.load(folder)
    threads = Threads(model.codebook.M * model.codebook.Z.shape[2], together)
    return replace(model, network=threads), threads


def test_a_service_encodes_on_one_thread(random_model: Path) -> None:
    model, threads = watched(random_model, 1)
    with closing(Encoder()) as encoder:
        for _ in range(2):
            encoder.encode(
                [DecodedImage(32, 32, {model.id: np.zeros((3, 32, 32), np.uint8)})], model
            )
    assert threads.seen == {"encode_0"}


def test_jobs_encode_several_batches_at_once(random_model: Path) -> None:
    model, threads = watched(random_model, 3)
    image = DecodedImage(1, 1, {model.id: np.zeros((3, 1, 1), np.uint8)})
    with closing(Encoder(together=64, networks=3)) as encoder, ThreadPoolExecutor(3) as callers:
        found = list(callers.map(lambda _: encoder.encode([image] * 8, model), range(3)))
    assert [len(codes) for codes in found] == [8, 8, 8]
    assert threads.seen == {"encode_0", "encode_1", "encode_2"}


def test_a_service_gives_each_batch_the_configured_threads(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Options] = []

    def load(folder: Path, options: Options) -> Model:
        asked.append(options)
        return loaded

    loaded = engines.load(random_model)
    monkeypatch.setattr(engines, "load", load)
    url = f"sqlite:///{tmp_path}/gpq.db"
    settings = Settings(
        model=random_model, database_url=url, image_store="none", encode_threads=3, device="cpu"
    )
    runtime = Runtime(settings)
    runtime.start()
    waiting.until(lambda: runtime.ready)
    runtime.stop()
    assert [(options.threads, options.streams) for options in asked] == [(3, 1)]


@pytest.mark.parametrize(("kind", "expected"), [("import", (1, 3)), ("reindex", (3, 1))])
def test_an_import_runs_one_batch_on_each_thread_and_a_reindex_one_batch_on_all(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kind: JobKind, expected: tuple[int, int],
) -> None:  # fmt: skip
    asked: list[Options] = []
    load = artifacts.load

    def watched_load(files: Mapping[str, bytes], options: Options) -> Model:
        asked.append(options)
        return load(files, options)

    monkeypatch.setattr(artifacts, "load", watched_load)
    monkeypatch.setattr(os, "nice", lambda increment: 0)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    store = Store(f"sqlite:///{tmp_path}/gpq.db")
    migrate(store.database)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(1))
    settings = Settings(image_store=str(tmp_path / "images"), encode_threads=3, device="cpu")
    store.models.adopt(engines.load(random_model).id, artifacts.read(random_model))
    put = Put("a", {store.models.all()[0].id: bytes(6)}, "0" * 64, 4, 3, 100, None)
    store.images.put([put])
    other = tmp_path / "other"
    store.models.add(make_artifact(other, seed=9), artifacts.read(other))
    number = store.jobs.request(kind, str(tmp_path / "in"), by_service=False)
    with closing(store), JobRun(store.jobs, number) as run:
        work(store, settings, run, 1)
    assert {(options.threads, options.streams) for options in asked} == {expected}


def test_the_garbage_collector_ignores_objects_created_before_the_start(tmp_path: Path) -> None:
    """A full collection stops all threads, for longer than a search takes."""
    program = """
import gc, sys, uvicorn
from service.__main__ import main
uvicorn.run = lambda app, **_: print(len(gc.get_objects()), gc.get_freeze_count())
sys.argv = ["service"]
main()
"""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GPQ_MODEL": str(SHIPPED),
        "GPQ_PORT": "0",
    }
    printed = subprocess.check_output(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, text=True
    )
    collected, frozen = map(int, printed.split())
    assert collected < 1000 < 100_000 < frozen
