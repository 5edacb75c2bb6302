"""Chooses an engine for networks and loads models with it. Add a new engine here."""

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gpq.errors import ArtifactError
from gpq.model import artifact as artifacts
from gpq.model import golden
from gpq.model.artifact import Artifact, Precision
from gpq.model.model import Model
from gpq.model.network import Network
from gpq.system.processors import processors

FLOAT32: Final = "float32"
ENGINES = ("openvino", "onnxruntime", "torch")
AUTO: Final = "auto"
ADVICE = (
    "upgrade it where the extra `train` is installed, with `python -m trainer upgrade DIR` or, in "
    "a database, `python -m trainer upgrade --database URL`"
)
UPGRADE = (
    "the model has no graph of its network, as models of earlier versions; without torch it cannot "
    f"run: {ADVICE}"
)
log = logging.getLogger("gpq")


@dataclass(frozen=True)
class Options:
    """How to run networks.

    ``engine``: one of ENGINES or auto. ``precision``: float32, bfloat16 or auto, which is the
    precision that the model is made for. ``device``: cpu or cuda. ``threads``: of each batch, 0
    for all processors. ``streams``: batches that run at the same time on the CPU. ``on_full``:
    called each time that a device runs out of memory.
    """

    engine: Literal["auto", "openvino", "onnxruntime", "torch"] = AUTO
    precision: Literal["auto", "float32", "bfloat16"] = AUTO
    device: str = "cpu"
    threads: int = 0
    streams: int = 1
    on_full: Callable[[], object] = lambda: None


def load(folder: Path, options: Options | None = None) -> Model:
    """Loads an artifact with the first engine that computes its golden vectors.

    Raises ArtifactError, with the reason of each engine that was tried.
    """
    return start(artifacts.load(folder), options, lambda model: golden.verify(model, folder))


def start(
    artifact: Artifact,
    options: Options | None = None,
    verify: Callable[[Model], object] = lambda model: None,
) -> Model:
    """Makes a model of an artifact with the first engine that ``verify`` accepts.

    ``verify`` raises ArtifactError if the engine computes other codes than it should. Raises
    ArtifactError if no engine is left.
    """
    options = options or Options()
    reasons: list[str] = []
    failures: list[ArtifactError] = []
    for engine, device in _candidates(artifact, options):
        if reason := _missing(engine, device, artifact):
            reasons.append(reason)
            continue
        for precision in _precisions(engine, artifact, options):
            try:
                network = _run_in(engine, device, precision, artifact, options)
                model = Model(
                    id=artifact.id,
                    rules=artifact.rules,
                    network=network,
                    codebook=artifact.codebook,
                    about=artifact.about,
                    reason="; ".join([_why(network, artifact, options), *reasons]),
                )
                verify(model)
            except ArtifactError as error:
                failures.append(error)
                tried = engine if precision == FLOAT32 else f"{engine} in {precision}"
                reasons.append(f"{tried} failed: {error}")
                log.warning("%s", reasons[-1])
                continue
            log.info("model %s: %s, %s", model.id[:12], network.engine, model.reason)
            return model
    if len(reasons) == len(failures) == 1:
        raise failures[0]
    raise ArtifactError(f"{artifact.folder}: no engine can run the model: {'; '.join(reasons)}")


def _candidates(artifact: Artifact, options: Options) -> list[tuple[str, str]]:
    """Returns engines and their devices, in the order in which to try them."""
    if options.engine != AUTO:
        return [(options.engine, "cpu" if options.engine == "openvino" else options.device)]
    on_device = [("torch", "cuda"), ("onnxruntime", "cuda")] if options.device == "cuda" else []
    return on_device + [(engine, "cpu") for engine in ENGINES]


def _missing(engine: str, device: str, artifact: Artifact) -> str:
    """Returns the reason why an engine cannot run an artifact here, or an empty string."""
    if engine == "torch":
        if artifact.is_encoder:
            return "torch has no architecture for a network that was given as a graph"
        if importlib.util.find_spec("torch") is None:
            return UPGRADE if artifact.cost is None else "torch is not installed"
        from gpq.engine import torch_network

        return torch_network.missing(device)
    if artifact.cost is None:
        return f"{engine} needs the graph of the network, which the model lacks: {ADVICE}"
    if engine == "openvino":
        from gpq.engine import openvino_network

        return openvino_network.missing()
    from gpq.engine import onnxruntime_network

    return onnxruntime_network.missing(device)


def _precisions(engine: str, artifact: Artifact, options: Options) -> list[Precision]:
    """Returns the precisions in which to try an engine.

    Processors round bfloat16 in different ways. If codes differ on this one and the precision was
    not requested together with the engine, float32 is next.
    """
    if engine != "openvino":
        return [FLOAT32]
    from gpq.engine.openvino_network import supports

    wanted = _precision(artifact, options)
    if wanted == FLOAT32 or not supports(wanted):
        return [FLOAT32]
    return [wanted] if AUTO not in (options.engine, options.precision) else [wanted, FLOAT32]


def _run_in(
    engine: str, device: str, precision: Precision, artifact: Artifact, options: Options
) -> Network:
    """Loads a network with an engine. Raises ArtifactError."""
    threads = options.threads or processors()
    if engine == "openvino":
        from gpq.engine.openvino_network import OpenVINONetwork

        return OpenVINONetwork(artifact, precision, threads, options.streams)
    if engine == "onnxruntime":
        from gpq.engine.onnxruntime_network import ONNXRuntimeNetwork

        return ONNXRuntimeNetwork(artifact, device, threads, options.on_full)
    from gpq.engine.torch_network import TorchNetwork

    return TorchNetwork(artifact, device, threads, options.on_full)


def _precision(artifact: Artifact, options: Options) -> Precision:
    return artifact.precision if options.precision == AUTO else options.precision


def _why(network: Network, artifact: Artifact, options: Options) -> str:
    why = "the fastest available" if options.engine == AUTO else "requested"
    wanted = _precision(artifact, options)
    if wanted not in _precisions(network.engine, artifact, options):
        why += f", in {network.precision}, because it has no {wanted} here"
    return why
