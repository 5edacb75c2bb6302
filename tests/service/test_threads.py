import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from gpq.model import artifact
from gpq.scan.native import NativeScanner, missing
from gpq.system.openmp import spin_briefly
from gpq.system.processors import processors
from harness import ROOT
from harness.models import SHIPPED
from service.models.decoder import DecodedImage
from service.models.encoder import Encoder
from service.settings import Settings


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


def test_a_service_encodes_on_one_thread_with_the_configured_torch_threads(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = artifact.load(random_model)
    encoder = Encoder(3)
    seen: set[tuple[str, int]] = set()

    def compute(self: object, key: object, model: object, pixels: np.ndarray) -> np.ndarray:
        seen.add((threading.current_thread().name, torch.get_num_threads()))
        return np.zeros((len(pixels), 6), np.uint8)

    monkeypatch.setattr("gpq.engine.fallback.Fallback.run", compute)
    before = torch.get_num_threads()
    try:
        for _ in range(2):
            encoder.encode(
                [DecodedImage(32, 32, {model.id: np.zeros((3, 32, 32), np.uint8)})], model
            )
    finally:
        encoder.close()
        torch.set_num_threads(before)
    assert seen == {("encode_0", 3)}


def test_jobs_encode_several_batches_at_once_with_one_torch_thread_each(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = artifact.load(random_model)
    encoder = Encoder(1, together=64, networks=3)
    all_computing = threading.Barrier(3)
    seen: set[int] = set()

    def compute(self: object, key: object, model: object, pixels: np.ndarray) -> np.ndarray:
        all_computing.wait(10)
        seen.add(torch.get_num_threads())
        return np.full((len(pixels), 6), pixels[0, 0, 0, 0], np.uint8)

    def encode(n: int) -> list[bytes]:
        image = DecodedImage(1, 1, {model.id: np.full((3, 1, 1), n, np.uint8)})
        return encoder.encode([image] * 8, model)

    monkeypatch.setattr("gpq.engine.fallback.Fallback.run", compute)
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(3) as callers:
            found = callers.map(encode, range(3))
            assert list(found) == [[bytes([n]) * 6] * 8 for n in range(3)]
    finally:
        encoder.close()
        torch.set_num_threads(before)
    assert seen == {1}


def test_the_garbage_collector_ignores_objects_created_before_the_start(tmp_path: Path) -> None:
    """A full collection stops all threads; with torch's objects it takes longer than a search."""
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
