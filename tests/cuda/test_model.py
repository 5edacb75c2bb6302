"""Tests the models on a GPU; run by ``make gpu``."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.model import golden
from harness.models import SHIPPED
from harness.trained import make_trained_artifact

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def trained_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained-model")
    make_trained_artifact(folder)
    return folder


def test_the_shipped_model_passes_its_golden_vectors_on_the_gpu() -> None:
    network = engines.load(SHIPPED, Options(device="cuda")).network
    assert (network.engine, network.device) == ("torch", "cuda")


def test_codes_are_those_of_the_cpu(trained_model: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 3, 32, 32), dtype=np.uint8)
    on_cpu = engines.load(trained_model, Options("torch"))
    on_gpu = engines.load(trained_model, Options("torch", device="cuda"))
    sure = on_cpu.codebook.margin(on_cpu.features(pixels)) > golden.GOLDEN_MARGIN
    assert sure.sum() > 128
    assert (on_cpu.encode(pixels)[sure] == on_gpu.encode(pixels)[sure]).all()
    one_by_one = np.concatenate([on_gpu.encode(p[None]) for p in pixels[sure]])
    assert (one_by_one == on_gpu.encode(pixels)[sure]).all()
    difference = np.abs(on_cpu.lut(pixels) - on_gpu.lut(pixels)).max()
    assert difference < 1e-5
    assert torch.cuda.is_available()


def test_a_full_gpu_halves_batches_and_then_leaves_them_to_the_cpu() -> None:
    full: list[None] = []
    model = engines.load(SHIPPED, Options(device="cuda", on_full=lambda: full.append(None)))
    pixels = np.random.default_rng(0).integers(0, 256, (256, 3, 32, 32), dtype=np.uint8)
    expected = model.encode(pixels)
    assert not full
    torch.cuda.empty_cache()
    for room in (8 << 20, 0):  # bytes more than are in use
        used = torch.cuda.memory_reserved() + room
        torch.cuda.set_per_process_memory_fraction(used / torch.cuda.mem_get_info()[1])
        try:
            found = model.encode(pixels)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert (found == expected).mean() > 0.99  # another batch size may round differently
        torch.cuda.empty_cache()
    assert len(full) > 1
