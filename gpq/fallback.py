"""Encoding where the device runs out of memory: smaller batches, then the CPU for a while."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from gpq.model import Model

Compute = Callable[[Model, NDArray[np.uint8]], NDArray[np.generic]]
RETRY_SECONDS = 60  # a model that had no room on the device stays off it so long
log = logging.getLogger("gpq")


class Fallback:
    """One caller at a time. A model that is on the CPU leaves nothing on the device, and goes back
    after RETRY_SECONDS where there is room again.

    watch: called each time that memory runs out.
    """

    def __init__(self, watch: Callable[[], object] = lambda: None) -> None:
        self._watch = watch
        self._moved: dict[str, tuple[Model, float]] = {}  # and when it may go back

    def run(self, compute: Compute, model: Model, pixels: NDArray[np.uint8]) -> NDArray[np.generic]:
        """``compute`` for pixels (B,3,S,S), in as large parts as there is memory for."""
        at = self._moved.get(model.id)
        if at is not None:
            on_cpu, until = at
            if time.monotonic() < until or not self._back(model):
                return compute(on_cpu, pixels)
        try:
            return compute(model, pixels)
        except torch.OutOfMemoryError as error:
            reason = str(error).partition("\n")[0]
        self._watch()
        torch.cuda.empty_cache()
        if len(pixels) > 1:
            half = len(pixels) // 2
            parts = [self.run(compute, model, part) for part in (pixels[:half], pixels[half:])]
            return np.concatenate(parts)
        log.warning("model %s is on the CPU for now: %s", model.id, reason)
        return compute(self._move(model), pixels)

    def _move(self, model: Model) -> Model:
        on_cpu = replace(
            model,
            network=model.network.cpu(),
            codebook=model.codebook.to("cpu"),
            device=torch.device("cpu"),
        )
        self._moved[model.id] = on_cpu, time.monotonic() + RETRY_SECONDS
        torch.cuda.empty_cache()
        return on_cpu

    def _back(self, model: Model) -> bool:
        try:
            model.network.to(model.device)
        except torch.OutOfMemoryError:
            self._move(model)
            return False
        del self._moved[model.id]
        return True
