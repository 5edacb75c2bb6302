"""Runs networks in torch: on CUDA devices, and on CPUs where asked for."""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gpq.engine import torch_architectures
from gpq.engine.torch_pixels import normalise
from gpq.errors import ArtifactError
from gpq.model.artifact import Artifact
from gpq.system.device import in_parts_that_fit, out_of_memory

RETRY_SECONDS = 60  # how long a network that had no room on the device stays on the CPU
log = logging.getLogger("gpq")


def missing(device: str = "cpu") -> str:
    """Returns the reason why torch cannot be used, or an empty string if it can."""
    if device == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return ""


def module_of(artifact: Artifact) -> nn.Module:
    """Builds the network of an artifact with its weights, ready to compute features.

    Raises ArtifactError if there is no such architecture, or its weights are others.
    """
    described = artifact.network
    name, sizes = described["name"], (described.get("width"), described.get("classes", 0))
    try:
        with torch.device("meta"):  # a wrong width must not allocate memory
            module = torch_architectures.build(name, artifact.dimension, *sizes)
        tensors = {
            name: torch.from_numpy(np.array(tensor))
            for name, tensor in artifact.weights.network().items()
        }
        module.load_state_dict(tensors, assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{artifact.folder}: torch cannot build the network: {error}"
        ) from error
    return module.eval().requires_grad_(False)


class TorchNetwork:
    """A ``gpq.model.network.Network`` in float32, with TF32 off.

    A batch that has no room on a CUDA device runs in halves. If a single image has no room, the
    network moves to the CPU, and back after RETRY_SECONDS if there is room again.

    ``threads``: of each batch on the CPU. ``on_full``: called each time memory runs out. Raises
    ArtifactError.
    """

    engine = "torch"
    precision = "float32"
    batches: tuple[int, ...] = (32, 1)

    def __init__(
        self, artifact: Artifact, device: str, threads: int, on_full: Callable[[], object]
    ) -> None:
        self.device = device
        self.module = module_of(artifact)
        self._rules, self._threads, self._on_full = artifact.rules, threads, on_full
        self._back_at: float | None = None  # the time to return to the device, if on the CPU
        self._running = threading.Lock()
        if device == "cpu":
            self._place = torch.device("cpu")
            self._move_to("cpu")
        else:
            self._return_to_device()

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.device == "cpu":
            return self._in_parts(pixels)
        with self._running:
            if self._back_at is not None and time.monotonic() >= self._back_at:
                self._return_to_device()
            try:
                return self._in_parts(pixels)
            except RuntimeError as error:
                if self._back_at is not None or not out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            self._leave_device(reason)
            return self._in_parts(pixels)

    def _in_parts(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = in_parts_that_fit(self._run, pixels, self._on_full)
        return found[0] if len(found) == 1 else np.concatenate(found)

    @torch.inference_mode()
    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._place.type == "cpu" and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)  # of this thread
        images = normalise(self._rules, torch.from_numpy(pixels).to(self._place))
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            found: NDArray[np.float32] = self.module(images).cpu().numpy()
        return found

    def _return_to_device(self) -> None:
        try:
            self._move_to(self.device)
            self._back_at = None
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        else:
            return
        self._leave_device(reason)

    def _leave_device(self, reason: str) -> None:
        log.warning("the network is on the CPU for now: %s", reason)
        self._move_to("cpu")
        self._back_at = time.monotonic() + RETRY_SECONDS
        torch.cuda.empty_cache()

    def _move_to(self, device: str) -> None:
        self._place = torch.device(device)
        self.module.to(self._place, memory_format=torch.channels_last)  # type: ignore[call-overload]
