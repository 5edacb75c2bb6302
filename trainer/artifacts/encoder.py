"""Takes an image encoder from an ONNX file, as a frozen part of F.

The file is any encoder with one input (batch, 3, S, S) and one output (batch, E): the visual tower
of CLIP, DINOv2 or a network of torchvision. Training sees only its features. The artifact contains
the encoder and the layer that was learnt on its features.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as to_bytes
from torch import Tensor, nn
from tqdm import tqdm

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.errors import GraphError
from gpq.model import graph, weights
from gpq.model.artifact import ENCODER, MAX_BYTES, Artifact
from gpq.model.codebook import Codebook, K
from gpq.model.graph import external
from gpq.model.model import Model
from gpq.model.weights import NETWORK_PREFIX, TYPES, WEIGHTS, Place
from gpq.pixels.preprocess import Preprocess
from trainer.artifacts.specialise import specialise
from trainer.data.image_sets import TrainingSet
from trainer.errors import TrainerError
from trainer.evaluation.holdout import HeldOut

PREFIX = "onnx:"  # of the values of --network that name a file
ENCODER_PREFIX = NETWORK_PREFIX + "encoder."  # of the names of its weights in model.safetensors
LAST_LAYER = NETWORK_PREFIX + "project."
OUTPUT = "gpq.features"  # of the graph
LARGE_BYTES = 1024  # smaller constants stay in the graph
BATCH = 64
LEAST_DEVIATION = 1e-6  # a feature that never changes is only centred

Tensors = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Encoder:
    """An encoder that was read from a file.

    ``model``: its onnx.ModelProto, without large weights. ``tensors``: those, by their names in
    model.safetensors. ``dimension``: E. ``digest``: SHA-256 of all this and of the rules.
    """

    model: Any
    tensors: Tensors
    rules: Preprocess
    dimension: int
    digest: str

    def graph(self, places: Mapping[str, Place]) -> bytes:
        """Returns the graph of F: the encoder and the layer that was learnt on its features."""
        from onnx import helper

        model = _with_weights(self, places)
        last = [LAST_LAYER + name for name in ("weight", "bias")]
        made = model.graph
        made.initializer.extend(external(name, places[name]) for name in last)
        inputs = [made.output[0].name, *last]
        made.node.append(helper.make_node("Gemm", inputs, [OUTPUT], name=OUTPUT, transB=1))
        made.output[0].name = OUTPUT
        made.output[0].type.tensor_type.ClearField("shape")
        data: bytes = model.SerializeToString(deterministic=True)
        return data


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder and the means and deviations (E,) by which its features are standardised."""

    encoder: Encoder
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def tensors(self, head: nn.Module) -> Tensors:
        """Returns the tensors of F, by their names in model.safetensors.

        The last layer takes the encoder's features as they are, before they are standardised.
        """
        learnt = {name: tensor.detach().cpu().numpy() for name, tensor in head.state_dict().items()}
        weight = learnt["project.weight"] / self.deviation
        bias = learnt["project.bias"] - weight @ self.mean
        return {
            **self.encoder.tensors,
            LAST_LAYER + "weight": weight,
            LAST_LAYER + "bias": bias,
        }


def read(path: Path, rules: Preprocess) -> Encoder:
    """Reads an encoder for images of ``rules``.

    Raises TrainerError, which says what the file has instead of what is needed.
    """
    try:
        model = _parse(path)
        graph.check_frame(model)
        model = specialise(graph.fix_sizes(model, "batch", rules.size), rules.size)
        graph.check_nodes(model.graph)
        shapes = graph.infer_shapes(graph.fix_sizes(model, 1, rules.size))
    except GraphError as error:
        raise TrainerError(f"--network {PREFIX}{path}: {error}") from error
    found = shapes[model.graph.output[0].name]
    if len(found) != 2 or found[0] != 1:
        raise TrainerError(
            f"--network {PREFIX}{path}: its output is {graph.named(found)} for one image; an "
            "encoder has one row of features for each image, (batch, E): export it with its "
            "pooling"
        )
    tensors = _extract(model)
    digest = hashlib.sha256(repr(rules).encode() + model.SerializeToString(deterministic=True))
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + np.ascontiguousarray(tensor).tobytes())
    return Encoder(model, tensors, rules, found[1], digest.hexdigest())


def freeze(
    encoder: Encoder, images: TrainingSet, held_out: HeldOut | None, device: str
) -> tuple[FrozenEncoder, TrainingSet, HeldOut | None]:
    """Computes the features of all images, and returns them in the places of the images.

    Images (N,3,S,S) become standardised features (N,2,E) float32; the second row of an image is
    that of its mirror image.
    """
    with TemporaryDirectory(prefix="gpq-encoder-") as parent:
        model = load_alone(encoder, Path(parent), Options(device=device))
        labelled = _features(model, images.labelled, "labelled images")
        unlabelled = labelled
        if not images.all_labelled:
            unlabelled = _features(model, images.unlabelled, "unlabelled images")
        kept = _features(model, held_out.pixels, "held-out images") if held_out else None
    flat = unlabelled.flatten(0, 1)
    mean, deviation = flat.mean(dim=0), flat.std(dim=0).clamp(min=LEAST_DEVIATION)
    for found in {id(t): t for t in (labelled, unlabelled, kept) if t is not None}.values():
        found.sub_(mean).div_(deviation)
    return (
        FrozenEncoder(encoder, mean.numpy(), deviation.numpy()),
        replace(images, labelled=labelled, unlabelled=unlabelled),
        HeldOut(kept, held_out.labels) if held_out and kept is not None else None,
    )


def _parse(path: Path) -> Any:
    """Parses a file with its weights, which may stand in other files of its folder."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import load_external_data_for_model

    try:
        _require_size(path.stat().st_size)
        model = onnx.load_model_from_string(path.read_bytes())
        files = {path.parent / _location(t) for t in _external(model)}
        _require_size(path.stat().st_size + sum(file.stat().st_size for file in files))
        load_external_data_for_model(model, str(path.parent))
    except OSError as error:
        raise GraphError(f"{error.filename or path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise GraphError(f"it is not an ONNX graph: {error}") from error
    except (ValueError, onnx.checker.ValidationError) as error:
        raise GraphError(f"its weights cannot be read: {error}") from error
    return model


def _require_size(size: int) -> None:
    if size > MAX_BYTES:
        raise GraphError(f"it has {size} bytes; at most {MAX_BYTES} are allowed")


def _external(model: Any) -> list[Any]:
    from onnx import TensorProto

    return [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]


def _location(tensor: Any) -> str:
    return next((e.value for e in tensor.external_data if e.key == "location"), "")


def _extract(model: Any) -> Tensors:
    """Takes large weights out of a graph; returns them by their names in model.safetensors."""
    from onnx import TensorProto, numpy_helper

    known = {kind for kind, _ in TYPES.values()}
    tensors: Tensors = {}
    small = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        kind = TensorProto.DataType.Name(tensor.data_type)
        if values.nbytes < LARGE_BYTES:
            small.append(tensor)
        elif kind in known:
            tensors[ENCODER_PREFIX + tensor.name] = np.array(values)
        else:
            raise GraphError(
                f"the weight {tensor.name!r} is {kind}; weights may be {', '.join(sorted(known))}"
            )
    del model.graph.initializer[:]
    model.graph.initializer.extend(small)
    for holder in (model, model.graph, *model.graph.node):
        del holder.metadata_props[:]
        holder.doc_string = ""
    del model.graph.value_info[:]
    return tensors


def load_alone(encoder: Encoder, folder: Path, options: Options) -> Model:
    """Loads the encoder without a last layer, from files that it writes to ``folder``."""
    (folder / WEIGHTS).write_bytes(to_bytes(encoder.tensors))
    stored = weights.read(folder / WEIGHTS)
    model = _with_weights(encoder, stored.places)
    data = model.SerializeToString(deterministic=True)
    (folder / graph.GRAPH).write_bytes(data)
    codes = np.zeros((1, K, encoder.dimension), np.float32)  # an encoder has no codewords
    artifact = Artifact(
        folder=folder,
        id=encoder.digest,
        network={"name": ENCODER},
        rules=encoder.rules,
        codebook=Codebook(codes),
        weights=stored,
        precision="float32",
        cost=graph.check(data, stored, encoder.rules.size, encoder.dimension),
        about={},
    )
    return engines.start(artifact, options)


def _with_weights(encoder: Encoder, places: Mapping[str, Place]) -> Any:
    """Returns the encoder's graph with its weights, which stand at ``places``."""
    model = type(encoder.model)()
    model.CopyFrom(encoder.model)
    for name in encoder.tensors:
        tensor = external(name.removeprefix(ENCODER_PREFIX), places[name])
        model.graph.initializer.append(tensor)
    return model


def _features(model: Model, pixels: Tensor, what: str) -> Tensor:
    parts = []
    for part in tqdm(torch.split(pixels.cpu(), BATCH), desc=what, unit="batch"):
        images = part.numpy()
        mirrored = np.ascontiguousarray(images[..., ::-1])
        parts.append(np.stack([model.features(images), model.features(mirrored)], axis=1))
    return torch.from_numpy(np.concatenate(parts))
