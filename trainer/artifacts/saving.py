"""Writes artifacts with golden vectors, and artifacts made from others."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as to_bytes

from gpq.engine import engines, openvino_network
from gpq.model import artifact, golden, weights
from gpq.model.artifact import Artifact
from gpq.model.codebook import Codebook
from gpq.model.graph import external
from gpq.model.model import Model
from gpq.model.weights import NETWORK_PREFIX, WEIGHTS, Place
from trainer.errors import TrainerError

BFLOAT16: Final = "bfloat16"
Tensors = Mapping[str, NDArray[np.generic]]
MakeGraph = Callable[[Mapping[str, Place]], bytes]


def save(
    folder: Path,
    network: Tensors,
    codebook: Codebook,
    make_graph: MakeGraph | None,
    compute: Mapping[str, Any],
    about: Mapping[str, Any],
    examples: NDArray[np.uint8],
) -> str:
    """Writes an artifact and returns its id.

    ``network``: its tensors by their names in model.safetensors. ``make_graph``: makes network.onnx
    once the places of the tensors are known; None writes an artifact without a graph. ``compute``:
    network, preprocess and precision; the rest is replaced. ``examples``: images (N,3,S,S), from
    which the golden vectors are chosen. Raises ArtifactError.
    """
    tensors = {**network, **_of_codebook(codebook)}
    data = to_bytes({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    shape = dict(zip(("M", "K", "d"), codebook.Z.shape, strict=True))
    kept = {name: value for name, value in compute.items() if name not in ("graph", "score")}
    score = {} if codebook.score == "cosine" else {"score": codebook.score}
    compute = {**kept, **shape, **score}
    with TemporaryDirectory(prefix="gpq-artifact-") as parent:
        draft = Path(parent)
        (draft / WEIGHTS).write_bytes(data)
        graph = make_graph(weights.read(draft / WEIGHTS).places) if make_graph else None
        if graph is not None:
            compute["graph"] = artifact.digest(graph)
        artifact.write(draft, data, graph, compute, about)
        found = artifact.load(draft)
        options = engines.Options(precision="float32")
        model = engines.start(found, options, lambda m: golden.require_same_alone(m, examples))
        vectors = golden.choose(model, examples, _rounded(found))
    artifact.write(folder, data, graph, compute, {**about, "golden": vectors})
    return model.id


def derive(
    source: Artifact,
    folder: Path,
    codebook: Codebook,
    about: Mapping[str, Any],
    *,
    network: Tensors | None = None,
    precision: str | None = None,
    examples: NDArray[np.uint8] | None = None,
) -> str:
    """Writes a model made from a finished one; returns the new id.

    ``network``: replaces tensors of the network. ``precision``: replaces the precision.
    ``examples``: images (N,3,S,S) for the golden vectors, in place of the finished model's.
    """
    config = artifact.read_config(source.folder)
    compute = (
        config["compute"] if precision is None else {**config["compute"], "precision": precision}
    )
    tensors = source.weights.tensors.items()
    stored = {name: tensor for name, tensor in tensors if name.startswith(NETWORK_PREFIX)}
    make_graph: MakeGraph | None = None
    if source.cost is not None:
        made, places = source.graph.read_bytes(), source.weights.places

        def make_graph(new: Mapping[str, Place]) -> bytes:
            return repoint(made, places, new)

    if examples is None:
        examples = golden.images(source.rules, config["about"], source.folder)
    about = {name: value for name, value in about.items() if name != "golden"}
    return save(
        folder, {**stored, **(network or {})}, codebook, make_graph, compute, about, examples
    )


def repoint(graph: bytes, old: Mapping[str, Place], new: Mapping[str, Place]) -> bytes:
    """Returns a graph whose weights are the same ones in another model.safetensors.

    They may have other shapes there.
    """
    from onnx import TensorProto, load_model_from_string

    names = {(place.offset, place.length): name for name, place in old.items()}
    model = load_model_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            name = names[int(entries["offset"]), int(entries["length"])]
            tensor.CopyFrom(external(tensor.name, new[name]))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Raises TrainerError if ``folder`` has a model that must not be overwritten."""
    if (folder / WEIGHTS).exists() and not overwrite:
        raise TrainerError(
            f"--out: {folder} already has a model: name another folder, or give --overwrite"
        )


def _rounded(found: Artifact) -> Model | None:
    """Returns a model in bfloat16, or None if this processor does not compute in it."""
    if found.cost is None or openvino_network.missing() or not openvino_network.supports(BFLOAT16):
        return None
    return engines.start(found, engines.Options("openvino", BFLOAT16))


def _of_codebook(codebook: Codebook) -> Tensors:
    tensors = {"Z": codebook.Z, "means": codebook.means, "classes": codebook.classes}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
