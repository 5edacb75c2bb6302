from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpq import artifact
from service.encoder import Encoder, Picture


@pytest.mark.parametrize(
    ("together", "side", "batches"),
    [(0, 32, [8] * 12 + [4]), (64, 32, [64, 36]), (64, 160, [15] * 6 + [10]), (64, 400, [8] * 12)],
)
def test_jobs_encode_more_at_once_as_far_as_pixels_go(
    random_model: Path, together: int, side: int, batches: list[int]
) -> None:
    loaded = artifact.load(random_model)
    model = replace(loaded, rules=replace(loaded.rules, size=side))
    seen: list[int] = []
    encoder = Encoder(10_000, 1, 1, seen.append, together=together)
    count = sum(batches)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    found = encoder.encode([Picture(32, 32, {model.id: each}) for each in pixels], model)
    encoder.close()
    assert seen == batches
    assert found == [row.tobytes() for row in loaded.encode(pixels)]
