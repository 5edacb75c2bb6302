"""The frozen part of a network: what it computes, and the model that it becomes a part of."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpq.engine import torch_pixels
from gpq.engine.engines import Options
from gpq.model.artifact import ENCODER
from gpq.model.weights import NETWORK_PREFIX
from gpq.pixels.preprocess import Preprocess
from gpq.system.device import in_parts_that_fit
from trainer.artifacts import graph
from trainer.artifacts.encoder import Encoder, load_alone, of_graph
from trainer.artifacts.export import Finished, finished
from trainer.components.head import Head
from trainer.config import Architecture
from trainer.data.image_sets import Standard
from trainer.frozen.split import first_part, joined, rest

LINEAR = ("project", "project.classes")  # layers that take features; the second may be absent

Compute = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Running:
    """A frozen part that an engine has loaded.

    ``compute``: images (B,3,S,S) -> features (B,E). ``identity``: all that features depend on
    besides images: weights, rules, engine and precision.
    """

    compute: Compute
    identity: str


class Frozen(Protocol):
    """The frozen part of a network and its place in the finished model.

    pooled: whether its features are pooled ones; only those are standardised. rest: the network
    that learns on the features (B,E), of D outputs; ``classes``: how many classes its last layer
    computes the probabilities of, for pooled features of a FrozenNetwork. running: loads the part
    on a device, ``cpu`` or ``cuda``. finish: the whole network, of a rest that learnt on
    standardised features.
    """

    @property
    def pooled(self) -> bool: ...
    def rest(self, classes: int = 0) -> nn.Module: ...
    def running(self, device: str) -> AbstractContextManager[Running]: ...
    def finish(self, learnt: nn.Module, standard: Standard | None) -> Finished: ...


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder from a file, of which every layer is frozen. ``dimension``: D."""

    encoder: Encoder
    dimension: int
    pooled = True

    def rest(self, classes: int = 0) -> nn.Module:
        assert not classes, "an encoder's graph ends with a linear layer"
        return Head(self.encoder.dimension, self.dimension)

    @contextmanager
    def running(self, device: str) -> Iterator[Running]:
        with _in_an_engine(self.encoder, device) as found:
            yield found

    def finish(self, learnt: nn.Module, standard: Standard | None) -> Finished:
        last = {
            NETWORK_PREFIX + name: tensor.cpu().numpy()
            for name, tensor in folded(learnt.state_dict(), standard).items()
        }
        described = {"name": ENCODER, "encoder": self.encoder.digest}
        return Finished(described, {**self.encoder.tensors, **last}, self.encoder.graph)


@dataclass(frozen=True)
class FrozenNetwork:
    """The first layers of a network of the project.

    ``network``: the whole network, with the weights that the run starts from. ``stages``: those
    that are frozen, or None for all layers before ``project``.
    """

    network: nn.Module
    stages: int | None
    built: Architecture
    rules: Preprocess

    @property
    def pooled(self) -> bool:
        return self.stages is None

    def rest(self, classes: int = 0) -> nn.Module:
        if not classes:
            return rest(self.network, self.stages, self.built.size)
        last = self.network.get_submodule("project")
        assert self.pooled and isinstance(last, nn.Linear)
        return Head(last.in_features, last.out_features, classes)

    @contextmanager
    def running(self, device: str) -> Iterator[Running]:
        part = first_part(self.network, self.stages)
        digest = self._digest(part)
        if device != "cpu" or graph.missing():
            yield Running(_InTorch(part, self.rules, device), f"{digest} torch {device} float32")
            return
        from onnx_ir import to_proto

        size = self.built.size
        with torch.no_grad():
            dimension = part(torch.zeros(1, 3, size, size)).shape[1]
        made = of_graph(to_proto(graph.export(part, size)), self.rules, dimension, digest)
        with _in_an_engine(made, device) as found:
            yield found

    def finish(self, learnt: nn.Module, standard: Standard | None) -> Finished:
        state = {name: tensor.cpu() for name, tensor in learnt.state_dict().items()}
        last = learnt.get_submodule("project")
        return finished(joined(self.network, last, folded(state, standard)), self.built)

    def _digest(self, part: nn.Module) -> str:
        about = (self.built.network, self.built.width, self.stages, self.rules)
        digest = hashlib.sha256(repr(about).encode())
        for name, tensor in part.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def folded(state: dict[str, Tensor], standard: Standard | None) -> dict[str, Tensor]:
    """Returns the tensors of a rest whose last layer takes features before they are standardised.

    ``state``: those of a rest that takes standardised ones.
    """
    if standard is None:
        return state
    return {**state, **_changed(state, standard.mean, 1 / standard.deviation, -1)}


def unfolded(state: dict[str, Tensor], standard: Standard | None) -> dict[str, Tensor]:
    """Returns the opposite of ``folded``."""
    if standard is None:
        return state
    scaled = standard.mean / standard.deviation
    return {**state, **_changed(state, scaled, standard.deviation, 1)}


def _changed(state: dict[str, Tensor], mean: Tensor, scale: Tensor, sign: int) -> dict[str, Tensor]:
    """Scales the columns of features, the last E, and adds ± what they make of the mean (E,)."""
    changed: dict[str, Tensor] = {}
    for layer in LINEAR:
        weight, bias = (state.get(f"{layer}.{name}") for name in ("weight", "bias"))
        if weight is None or bias is None:
            continue
        columns = weight[:, -len(mean) :] * scale.to(weight.device)
        others = weight[:, : -len(mean)]
        changed[f"{layer}.weight"] = torch.cat([others, columns], dim=1)
        changed[f"{layer}.bias"] = bias + sign * columns @ mean.to(weight.device)
    return changed


@contextmanager
def _in_an_engine(encoder: Encoder, device: str) -> Iterator[Running]:
    with TemporaryDirectory(prefix="gpq-frozen-") as parent:
        model = load_alone(encoder, Path(parent), Options(device=device))
        network = model.network
        identity = f"{encoder.digest} {network.engine} {network.device} {network.precision}"
        yield Running(model.features, identity)


class _InTorch:
    """Runs a module in torch, in float32."""

    def __init__(self, module: nn.Module, rules: Preprocess, device: str) -> None:
        self.rules, self.place = rules, torch.device(device)
        self.module = module.to(self.place, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.concatenate(in_parts_that_fit(self._run, pixels))

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = torch_pixels.normalise(self.rules, torch.from_numpy(pixels).to(self.place))
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            found: NDArray[np.float32] = self.module(images).cpu().numpy()
        return found
