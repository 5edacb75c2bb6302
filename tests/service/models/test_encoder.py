import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gpq.engine import engines
from service.concurrency import wait_budget
from service.decoding.decoder import DecodedImage
from service.models.encoder import Encoder


@pytest.mark.parametrize(
    ("together", "side", "batches"),
    [(0, 32, [8] * 12 + [4]), (64, 32, [64, 36]), (64, 160, [15] * 6 + [10]), (64, 400, [8] * 12)],
)
def test_jobs_encode_larger_batches_up_to_a_number_of_pixels(
    random_model: Path, together: int, side: int, batches: list[int]
) -> None:
    loaded = engines.load(random_model)
    model = replace(loaded, rules=replace(loaded.rules, size=side))
    seen: list[int] = []
    count = sum(batches)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    with closing(Encoder(seen.append, together=together)) as encoder:
        found = encoder.encode([DecodedImage(32, 32, {model.id: image}) for image in pixels], model)
    assert seen == batches
    assert found == [row.tobytes() for row in loaded.encode(pixels)]


@pytest.mark.parametrize("call", ["encode", "luts"])
def test_a_request_that_has_begun_is_encoded_to_its_end(random_model: Path, call: str) -> None:
    model = engines.load(random_model)
    network = model.network

    class Slow:
        engine, precision, device = "openvino", "float32", "cpu"
        batches = (1,)

        def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            budget.left = 0  # as if the wait for the first batch had spent it
            return network.features(pixels)

    model = replace(model, network=Slow())
    images = [DecodedImage(32, 32, {model.id: np.zeros((3, 32, 32), np.uint8)})] * 32
    with closing(Encoder()) as encoder, wait_budget.limited(60):
        budget = wait_budget.current()
        if call == "encode":
            found = encoder.encode(images, model)
        else:
            found = asyncio.run(encoder.luts(images, model))
    assert len(found) == 32
