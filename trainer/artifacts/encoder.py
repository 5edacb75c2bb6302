"""Takes an image encoder from an ONNX file, as a frozen part of F.

The file is any encoder with one input (batch, 3, S, S) and one output (batch, E): the visual tower
of CLIP, DINOv2 or a network of torchvision. Training sees only its features. The artifact contains
the encoder and the layer that was learnt on its features.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as to_bytes

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
from trainer.errors import TrainerError

PREFIX = "onnx:"  # of the values of --network that name a file
ENCODER_PREFIX = NETWORK_PREFIX + "encoder."  # of the names of its weights in model.safetensors
LAST_LAYER = NETWORK_PREFIX + "project."
OUTPUT = "gpq.features"  # of the graph
LARGE_BYTES = 1024  # smaller constants stay in the graph

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


def of_graph(model: Any, rules: Preprocess, dimension: int, digest: str) -> Encoder:
    """Makes an encoder of a graph, an onnx.ModelProto, that this program exported.

    ``dimension``: E. ``digest``: identifies its weights and rules.
    """
    return Encoder(model, _extract(model), rules, dimension, digest)


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
