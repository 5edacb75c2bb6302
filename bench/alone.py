"""What a network does with nothing else to do."""

import time

import numpy as np

from gpq.model.model import Model


def pictures_a_second(model: Model, batch: int, seconds: float) -> float:
    """Through the network to look-up tables, so many already decoded ones at a time."""
    side = model.rules.size
    pixels = np.random.default_rng(1).integers(0, 256, (batch, 3, side, side), dtype=np.uint8)
    model.lut(pixels)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        model.lut(pixels)
        done += batch
    return done / (time.perf_counter() - started)
