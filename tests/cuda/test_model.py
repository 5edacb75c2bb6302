"""What must hold on a card; run by ``make gpu``."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gpq import artifact
from tests.conftest import SHIPPED

pytestmark = pytest.mark.cuda


def test_the_shipped_model_passes_its_golden_vectors_on_the_card() -> None:
    assert artifact.load(SHIPPED, "cuda").device.type == "cuda"


def test_codes_are_those_of_the_cpu(random_model: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 3, 32, 32), dtype=np.uint8)
    on_cpu, on_card = artifact.load(random_model), artifact.load(random_model, "cuda")
    sure = (on_cpu.codebook.margin(on_cpu.features(pixels)) > artifact.GOLDEN_MARGIN).numpy()
    assert sure.sum() > 128
    assert (on_cpu.encode(pixels)[sure] == on_card.encode(pixels)[sure]).all()
    one_by_one = np.concatenate([on_card.encode(p[None]) for p in pixels[sure]])
    assert (one_by_one == on_card.encode(pixels)[sure]).all()
    difference = np.abs(on_cpu.lut(pixels) - on_card.lut(pixels)).max()
    assert difference < 1e-5
    assert torch.cuda.is_available()
