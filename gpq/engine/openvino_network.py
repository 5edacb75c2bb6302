"""Runs networks in OpenVINO, on CPUs."""

import importlib.util
import sys
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpq.engine.batches import parts, sizes
from gpq.errors import ArtifactError
from gpq.model.artifact import Artifact, Precision

HINTS = {"float32": "f32", "bfloat16": "bf16"}


def missing() -> str:
    """Returns the reason why OpenVINO cannot be used, or an empty string if it can."""
    if importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed"
    try:
        core()
    except (ImportError, OSError, RuntimeError) as error:
        return f"OpenVINO does not start: {str(error).partition(chr(10))[0]}"
    return ""


@cache
def core() -> Any:
    """Imports OpenVINO and returns its Core.

    OpenVINO's telemetry would start a process, call an analytics server and write to the home
    folder. It does nothing if its package cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def supports(precision: Precision) -> bool:
    """Returns whether the processor computes in a precision, without emulation."""
    return precision == "float32" or "BF16" in core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    )


class OpenVINONetwork:
    """A ``gpq.model.network.Network``, compiled for this processor.

    ``threads``: of each batch. ``streams``: batches that run at the same time. Every size of batch
    that will run has run once when the constructor returns. Raises ArtifactError.
    """

    engine = "openvino"
    device = "cpu"

    def __init__(
        self, artifact: Artifact, precision: Precision, threads: int, streams: int
    ) -> None:
        if artifact.cost is None:
            raise ArtifactError("the artifact has no graph")
        self.precision: str = precision
        self.batches = sizes(artifact.cost.values)
        self._free: SimpleQueue[Any] = SimpleQueue()  # inference requests that no thread uses
        try:
            self._compiled = _compile(artifact, precision, threads, streams)
            side = artifact.rules.size
            for size in self.batches:
                found = self.features(np.zeros((size, 3, side, side), np.uint8)).shape
                if found != (size, artifact.dimension):
                    raise ValueError(f"it computes {found} for {size} images")
        except Exception as error:  # it raises many kinds, most of them RuntimeError
            line = " ".join(str(error).split())[:300]
            raise ArtifactError(f"{artifact.graph}: OpenVINO cannot run it: {line}") from error

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = []
        request = self._request()
        for part in parts(len(pixels), self.batches):
            result = request.infer([pixels[part]], share_inputs=True, share_outputs=True)
            found.append(np.array(result[0]))
        self._free.put(request)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _request(self) -> Any:
        try:
            return self._free.get_nowait()
        except Empty:
            return self._compiled.create_infer_request()


def _compile(artifact: Artifact, precision: Precision, threads: int, streams: int) -> Any:
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    model = core().read_model(artifact.graph)
    rules = artifact.rules
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NCHW"))
    normalised = steps.input().preprocess().convert_element_type(Type.f32)
    normalised.mean(list(rules.mean)).scale(list(rules.std))
    model = steps.build()
    model.reshape([-1, 3, rules.size, rules.size])
    return core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": HINTS[precision],  # by default it is bf16 where supported
            "INFERENCE_NUM_THREADS": threads * streams,
            "NUM_STREAMS": streams,
            "ENABLE_HYPER_THREADING": True,  # or only one thread of each core would count
            "ENABLE_CPU_PINNING": False,  # other processes pin theirs to the same processors
        },
    )
