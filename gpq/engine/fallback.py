"""Encodes images if the device runs out of memory: in smaller batches, then on the CPU."""

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
RETRY_SECONDS = 60  # how long a model that had no room on the device stays on the CPU
log = logging.getLogger("gpq")


class Fallback:
    """Runs models on their device as long as it has room for them, else on the CPU.

    A model that is on the CPU returns to the device after RETRY_SECONDS, if there is room again.
    Serves one caller at a time.

    ``watch``: called each time memory runs out.
    """

    def __init__(self, watch: Callable[[], object] = lambda: None) -> None:
        self._watch = watch
        self._moved: dict[str, tuple[Model, float]] = {}  # on the CPU, and when to try again
        self._back: dict[str, Model] = {}  # models that returned to the device

    def run(self, compute: Compute, model: Model, pixels: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Returns ``compute`` of pixels (B,3,S,S), in parts as large as memory allows."""
        moved = self._moved.get(model.id)
        if moved is not None:
            on_cpu, until = moved
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
        """Takes a model that was loaded on the CPU because ``device`` had no room for it.

        Returns the model with ``device`` as its device.
        """
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
            device=torch.device("cpu"),
        )
        self._moved[model.id] = on_cpu, time.monotonic() + RETRY_SECONDS
        self._back.pop(model.id, None)
        torch.cuda.empty_cache()
        return on_cpu

    def _go_back(self, model: Model) -> bool:
        try:
            self._back[model.id] = replace(model, network=model.network.to(model.device))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            self._move(model)
            return False
        del self._moved[model.id]
        return True
