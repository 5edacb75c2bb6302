"""Runs networks in ONNX Runtime, on CPUs and on CUDA devices."""

import importlib.util
import os
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpq.engine.batches import parts, sizes
from gpq.errors import ArtifactError
from gpq.model.artifact import Artifact
from gpq.system.device import in_parts_that_fit

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
QUIET = 3  # of its levels of logging: errors only
NO_ROOM = "Failed to allocate memory"  # in its error if a device has no room for a batch


def missing(device: str = "cpu") -> str:
    """Returns the reason why ONNX Runtime cannot be used, or an empty string if it can."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "ONNX Runtime is not installed"
    try:
        providers = library().get_available_providers()
    except (ImportError, OSError) as error:
        return f"ONNX Runtime does not start: {str(error).partition(chr(10))[0]}"
    if PROVIDERS[device] not in providers:
        return f"this build of ONNX Runtime has no {PROVIDERS[device]}; install onnxruntime-gpu"
    return ""


@cache
def library() -> Any:
    """Imports ONNX Runtime.

    Its telemetry would write an id to the home folder and send events to its maker. It reads the
    variable when it is imported; later it can no longer be turned off as a whole.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


class ONNXRuntimeNetwork:
    """A ``gpq.model.network.Network`` in float32, for batches of any size.

    ``threads``: of each batch. A batch that has no room on a CUDA device runs in halves.
    ``on_full``: called each time memory runs out. Raises ArtifactError.
    """

    engine = "onnxruntime"
    precision = "float32"

    def __init__(self, artifact: Artifact, device: str, threads: int, on_full: Any) -> None:
        if artifact.cost is None:
            raise ArtifactError("the artifact has no graph")
        self.device = device
        self._on_full = on_full
        self.batches = sizes(artifact.cost.values)
        self._rules = artifact.rules
        options = library().SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = QUIET
        # Threads that spin while they wait would take the processor from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = library().InferenceSession(
                artifact.graph, options, providers=[PROVIDERS[device]]
            )
            self._input = self._session.get_inputs()[0].name
            side = artifact.rules.size
            for size in self.batches[-2:]:  # allocates what calls need, and counts the rows
                found = self.features(np.zeros((size, 3, side, side), np.uint8)).shape
                if found != (size, artifact.dimension):
                    raise ValueError(f"it computes {found} for {size} images")
        except Exception as error:  # it raises many kinds, which share no class of its own
            line = " ".join(str(error).split())[:300]
            raise ArtifactError(f"{artifact.graph}: ONNX Runtime cannot run it: {line}") from error

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = []
        for part in parts(len(pixels), self.batches):
            found += in_parts_that_fit(self._run, pixels[part], self._on_full)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = self._rules.normalise(pixels)
        try:
            found: NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
        except Exception as error:  # callers know RuntimeError only
            full = "out of memory: " if NO_ROOM in str(error) else ""
            raise RuntimeError(f"ONNX Runtime: {full}{error}") from error
        return found
