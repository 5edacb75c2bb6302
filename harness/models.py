"""Makes model artifacts with random weights, without torch, and names the shipped ones."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gpq.engine import engines
from gpq.model import artifact, golden, weights
from gpq.model.codebook import SIGNS_OF_A_WORD, K, Score, intra_normalise, sign_words
from gpq.model.graph import GRAPH, external
from gpq.pixels.preprocess import Preprocess
from harness import ROOT

SHIPPED = ROOT / "models" / "cifar10"  # small and fast
DEFAULT = ROOT / "models" / "photos"  # the service's
PHOTOS64 = ROOT / "models" / "photos64"
OPSET = 20
SUB_DIMENSION = 12  # of a sub-vector, d
CHANNELS = 16  # of the last convolution


def make_artifact(
    folder: Path,
    seed: int = 0,
    M: int = 12,
    *,
    size: int = 32,
    precision: str = "float32",
    score: Score = "cosine",
) -> str:
    """Writes a valid artifact with random weights to ``folder``, and returns its id.

    Its network has two convolutions. ``M``: number of codebooks. ``score``: how codes are compared.
    """
    random = np.random.default_rng(seed)
    tensors = random_tensors(random, M, score)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / weights.WEIGHTS).write_bytes(save(tensors))
    network = graph(weights.read(folder / weights.WEIGHTS), size).SerializeToString()
    compute = {
        "M": M,
        "K": K,
        "d": tensors["Z"].shape[2],
        "network": {"name": artifact.ENCODER},
        "preprocess": asdict(Preprocess(size)),
        "precision": precision,
        "graph": artifact.digest(network),
        **({} if score == "cosine" else {"score": score}),
    }
    about: dict[str, Any] = {"classes": ["a", "b"], "measured": None}
    artifact.write(folder, save(tensors), network, compute, about)
    model = engines.start(artifact.load(folder))
    pixels = random.integers(0, 256, (256, 3, size, size), dtype=np.uint8)
    about["golden"] = golden.choose(model, pixels)
    artifact.write(folder, save(tensors), network, compute, about)
    return model.id


def fields(folder: Path) -> dict[str, bytes]:
    """Returns the files of an artifact as the fields of POST /models."""
    names = {"config": artifact.CONFIG, "weights": weights.WEIGHTS, "graph": GRAPH}
    return {field: (folder / name).read_bytes() for field, name in names.items()}


def random_tensors(
    random: np.random.Generator, M: int, score: Score = "cosine"
) -> dict[str, NDArray[np.float32]]:
    """Returns the weights of ``graph`` and random codewords, or those of Hamming codes."""
    d = SIGNS_OF_A_WORD if score == "hamming" else SUB_DIMENSION

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.standard_normal(shape, dtype=np.float32)

    network = {
        "F.first.weight": normal(8, 3, 3, 3) / 5,
        "F.first.bias": normal(8) / 5,
        "F.second.weight": normal(CHANNELS, 8, 3, 3) / 8,
        "F.second.bias": normal(CHANNELS) / 8,
        "F.project.weight": normal(M * d, 2 * CHANNELS),
        "F.project.bias": normal(M * d),
    }
    if score == "hamming":
        Z = sign_words(M)
    elif score == "cosine":
        Z = np.ascontiguousarray(intra_normalise(normal(K, M * d), M).transpose(1, 0, 2))
    else:
        Z = normal(M, K, d)
    return {**network, "Z": Z}


def graph(stored: weights.Weights, size: int) -> Any:
    """Returns the onnx.ModelProto of a small network whose weights stand in model.safetensors."""
    from onnx import TensorProto, helper  # may be missing beside a GPU

    step = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    first, second, last = (
        [f"F.{layer}.weight", f"F.{layer}.bias"] for layer in ("first", "second", "project")
    )
    nodes = [
        helper.make_node("Conv", ["images", *first], ["a"], **step),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", *second], ["c"], **step),
        helper.make_node("Relu", ["c"], ["e"]),
        helper.make_node("GlobalMaxPool", ["e"], ["most"]),
        helper.make_node("GlobalAveragePool", ["e"], ["mean"]),
        helper.make_node("Concat", ["most", "mean"], ["both"], axis=1),
        helper.make_node("Flatten", ["both"], ["flat"]),
        helper.make_node("Gemm", ["flat", *last], ["features"], transB=1),
    ]
    D = stored.tensors["F.project.bias"].shape[0]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, size, size])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", D])
    names = sorted({name for node in nodes for name in node.input if name.startswith("F.")})
    made = helper.make_graph(
        nodes,
        "network",
        [images],
        [features],
        [external(name, stored.places[name]) for name in names],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
