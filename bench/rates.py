"""Measures how many images a second a function processes."""

import time
from collections.abc import Callable

import numpy as np

from gpq.model.model import Model


def images_a_second(work: Callable[[], object], images: int, seconds: float) -> float:
    """Calls ``work``, which processes ``images`` images, again and again for ``seconds``.

    The first call is not counted.
    """
    work()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        work()
        done += images
    return done / (time.perf_counter() - started)


def model_alone(model: Model, batch: int, seconds: float) -> float:
    """Returns the images a second from decoded pixels to look-up tables, ``batch`` at a time."""
    side = model.rules.size
    pixels = np.random.default_rng(1).integers(0, 256, (batch, 3, side, side), dtype=np.uint8)
    return images_a_second(lambda: model.lut(pixels), batch, seconds)
