"""Encoding where the device runs out of memory: smaller batches, then the CPU for a while."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from gpq.model.model import Model
from gpq.system.device import in_parts_that_fit, out_of_memory

Compute = Callable[[Model, NDArray[np.uint8]], NDArray[np.generic]]
RETRY_SECONDS = 60  # a model that had no room on the device stays off it so long
log = logging.getLogger("gpq")


class Fallback:
    """One caller at a time. A model that is on the CPU leaves nothing on the device but its
    codebook, which is little, and goes back after RETRY_SECONDS where there is room again.

    watch: called each time that memory runs out.
    """

    def __init__(self, watch: Callable[[], object] = lambda: None) -> None:
        self._watch = watch
        self._moved: dict[str, tuple[Model, float]] = {}  # and when it may go back
        self._back: dict[str, Model] = {}  # those that went back

    def run(self, compute: Compute, model: Model, pixels: NDArray[np.uint8]) -> NDArray[np.generic]:
        """``compute`` for pixels (B,3,S,S), in as large parts as there is memory for."""
        at = self._moved.get(model.id)
        if at is not None:
            on_cpu, until = at
            if time.monotonic() < until or not self._go_back(model):
                return self._in_parts(compute, on_cpu, pixels)
        try:
            return self._in_parts(compute, self._back.get(model.id, model), pixels)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        log.warning("model %s is on the CPU for now: %s", model.id, reason)
        return self._in_parts(compute, self._move(model), pixels)

    def begin_on_cpu(self, model: Model, device: torch.device) -> Model:
        """A model that was loaded on the CPU, where the device had no room, as one of it."""
        wanted = replace(model, device=device)
        self._move(wanted)
        return wanted

    def forget(self, id: str) -> None:
        self._moved.pop(id, None)
        self._back.pop(id, None)

    def _in_parts(
        self, compute: Compute, model: Model, pixels: NDArray[np.uint8]
    ) -> NDArray[np.generic]:
        parts = in_parts_that_fit(lambda part: compute(model, part), pixels, self._watch)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _move(self, model: Model) -> Model:
        on_cpu = replace(
            model,
            network=model.network.cpu(),
            codebook=model.codebook.to("cpu"),
            device=torch.device("cpu"),
        )
        self._moved[model.id] = on_cpu, time.monotonic() + RETRY_SECONDS
        self._back.pop(model.id, None)
        torch.cuda.empty_cache()
        return on_cpu

    def _go_back(self, model: Model) -> bool:
        try:
            self._back[model.id] = replace(
                model,
                network=model.network.to(model.device),
                codebook=model.codebook.to(model.device),
            )
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            self._move(model)
            return False
        del self._moved[model.id]
        return True
