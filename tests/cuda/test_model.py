"""Tests the models on a GPU; run by ``make gpu``."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gpq.engine.fallback import Fallback
from gpq.model import artifact
from gpq.model.model import Model
from harness.models import SHIPPED

pytestmark = pytest.mark.cuda


def test_the_shipped_model_passes_its_golden_vectors_on_the_gpu() -> None:
    assert artifact.load(SHIPPED, "cuda").device.type == "cuda"


def test_codes_are_those_of_the_cpu(random_model: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 3, 32, 32), dtype=np.uint8)
    on_cpu, on_gpu = artifact.load(random_model), artifact.load(random_model, "cuda")
    sure = on_cpu.codebook.margin(on_cpu.features(pixels).numpy()) > artifact.GOLDEN_MARGIN
    assert sure.sum() > 128
    assert (on_cpu.encode(pixels)[sure] == on_gpu.encode(pixels)[sure]).all()
    one_by_one = np.concatenate([on_gpu.encode(p[None]) for p in pixels[sure]])
    assert (one_by_one == on_gpu.encode(pixels)[sure]).all()
    difference = np.abs(on_cpu.lut(pixels) - on_gpu.lut(pixels)).max()
    assert difference < 1e-5
    assert torch.cuda.is_available()


def test_a_full_gpu_halves_batches_and_then_leaves_them_to_the_cpu() -> None:
    model = artifact.load(SHIPPED, "cuda")
    pixels = np.random.default_rng(0).integers(0, 256, (256, 3, 32, 32), dtype=np.uint8)
    expected = model.encode(pixels)
    full: list[None] = []
    careful = Fallback(lambda: full.append(None))
    torch.cuda.empty_cache()
    for room in (8 << 20, 0):  # bytes more than are in use
        used = torch.cuda.memory_reserved() + room
        torch.cuda.set_per_process_memory_fraction(used / torch.cuda.mem_get_info()[1])
        try:
            found = careful.run(Model.encode, model, pixels)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert (found == expected).mean() > 0.99  # another batch size may round differently
        torch.cuda.empty_cache()
    assert len(full) > 1
