"""Reads and writes artifacts: the folders that models are kept in. There is no pickle in them.

config.json
    format   int, version of the format: 2 added optional means of codes, 3 of classes, 4 the graph,
             5 ``score``; an artifact has the lowest format that has all that it needs
    compute  everything that determines a code: M, K, d, network, preprocess; since format 4
             optionally ``precision`` (float32 if absent) and ``graph``, the SHA-256 of
             network.onnx; since format 5 ``score``, how codes are compared (cosine if absent)
    about    information for people: classes, training, data, measured, golden vectors
model.safetensors
    every weight of the network, named F.…, the codewords Z, and optionally means and classes
network.onnx
    the network as a graph, whose weights stand in model.safetensors; see ``gpq.model.graph``.
    Artifacts of formats 1 to 3 lack it until they are upgraded.
The id of a model is sha256(model.safetensors ‖ canonical JSON of ``compute``), so that measuring
or upgrading a model does not change its id.
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ArtifactError, GraphError
from gpq.model import graph, weights
from gpq.model.codebook import SCORES, SIGNS_OF_A_WORD, Codebook, K, Score, sign_words
from gpq.model.cost import Cost
from gpq.model.graph import GRAPH
from gpq.model.weights import WEIGHTS, Weights
from gpq.pixels.preprocess import Preprocess
from gpq.system.files import replacing

FORMAT = 4
SCORED_FORMAT = 5  # of artifacts whose codes are not compared by cosines
READABLE = (1, 2, 3, FORMAT, SCORED_FORMAT)
CONFIG = "config.json"
NAMES = (CONFIG, WEIGHTS, GRAPH)
MAX_CONFIG_BYTES = 4 * 2**20
MAX_BYTES = 900_000_000  # of all files: a database keeps them, and Postgres has values of 1 GB
UNIT_TOLERANCE = 1e-4
MOST_MEAN, LEAST_STD = 1e4, 1e-4  # on the 0–255 scale
MOST_WORD = 1e4  # of a number in a codeword
COSINE: Score = "cosine"
ENCODER = "onnx"  # name of a network that was given as a graph
PRECISIONS = ("float32", "bfloat16")
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Artifact:
    """The checked contents of a folder; ``gpq.engine`` makes a model of it.

    ``id``: SHA-256, in hex, of the weights and ``compute``. ``network``: name and width of the
    architecture. ``precision``: the one that the model is made for. ``cost``: what the graph needs
    for one image; None if there is no graph, or no onnx to check it with, so that only torch can
    run the network.
    """

    folder: Path
    id: str
    network: Mapping[str, Any]
    rules: Preprocess
    codebook: Codebook
    weights: Weights
    precision: Precision
    cost: Cost | None
    about: dict[str, Any]

    @property
    def is_encoder(self) -> bool:
        """Whether the network was given as a graph, so that no architecture has its name."""
        return bool(self.network["name"] == ENCODER)

    @property
    def graph(self) -> Path:
        return self.folder / GRAPH

    @property
    def dimension(self) -> int:
        """The number of features, D = M · d."""
        return int(self.codebook.M * self.codebook.Z.shape[2])


def load(folder: Path) -> Artifact:
    """Reads and checks an artifact. Raises ArtifactError, which names the file and the reason."""
    config = read_config(folder)
    _require_size(folder)
    compute, place = config["compute"], folder / CONFIG
    try:
        shape = int(compute["M"]), int(compute["K"]), int(compute["d"])
        rules = _checked_rules(Preprocess.from_config(compute["preprocess"]))
        network = compute["network"]
        if not isinstance(network["name"], str):
            raise ValueError("the network's name is not a text")
        precision = compute.get("precision", PRECISIONS[0])
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}; known are {', '.join(PRECISIONS)}")
        score = compute.get("score", COSINE)
        if score not in SCORES:
            raise ValueError(f"score is {score!r}; known are {', '.join(SCORES)}")
        if score != COSINE and config["format"] < SCORED_FORMAT:
            raise ValueError(f"a score other than {COSINE} needs format {SCORED_FORMAT}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{place}: 'compute' is wrong: {error!r}") from error
    if shape[1] != K:
        raise ArtifactError(f"{place}: K is {shape[1]}; this version supports only {K}")
    found = weights.read(folder / WEIGHTS)
    about = config.get("about")
    return Artifact(
        folder=folder,
        id=_id(folder, compute),
        network=network,
        rules=rules,
        codebook=_codebook(found, shape, score, folder / WEIGHTS),
        weights=found,
        precision=cast(Precision, precision),
        cost=_checked_graph(folder, config, found, rules.size, shape[0] * shape[2]),
        about=about if isinstance(about, dict) else {},
    )


def write(
    folder: Path,
    tensors: bytes,
    network: bytes | None,
    compute: Mapping[str, Any],
    about: Mapping[str, Any],
) -> None:
    """Writes the files of an artifact.

    ``tensors``: the contents of model.safetensors. ``network``: the contents of network.onnx, or
    None for an artifact of format 3, which lacks it. Each file appears whole, config.json last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS, tensors)
    if network is None:
        (folder / GRAPH).unlink(missing_ok=True)
    else:
        _replace(folder / GRAPH, network)
    scored = compute.get("score", COSINE) != COSINE
    if scored and network is None:
        raise ArtifactError(f"{folder}: a model with the score {compute['score']} needs a graph")
    number = SCORED_FORMAT if scored else FORMAT - 1 if network is None else FORMAT
    write_config(folder, {"format": number, "compute": dict(compute), "about": dict(about)})


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the parsed config.json; raises ArtifactError if it cannot be used."""
    path = folder / CONFIG
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ArtifactError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
        config = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path}: there is no finished model in this folder; name the folder of a finished "
            "model, or finish the training with --resume"
        ) from error
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("compute"), dict):
        raise ArtifactError(f"{path}: not an object with a 'compute' object")
    if config.get("format") not in READABLE:
        raise ArtifactError(
            f"{path}: format {config.get('format')!r}; this version reads {READABLE}"
        )
    return config


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Replaces config.json atomically; the id stays the same if only ``about`` changes."""
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    _replace(folder / CONFIG, text.encode())


def add_graph(folder: Path, network: bytes) -> None:
    """Adds the graph to an artifact that lacks one; its id stays the same."""
    config = read_config(folder)
    _replace(folder / GRAPH, network)
    write_config(folder, {**config, "format": FORMAT})


def digest(network: bytes) -> str:
    """Returns the SHA-256 of a graph, in hex, by which ``compute`` and databases name it."""
    return hashlib.sha256(network).hexdigest()


def _checked_rules(rules: Preprocess) -> Preprocess:
    """Returns rules by which an engine can normalise pixels. Raises ValueError and TypeError."""
    for name, values, least in (("mean", rules.mean, -MOST_MEAN), ("std", rules.std, LEAST_STD)):
        if len(values) != 3 or not all(least <= value <= MOST_MEAN for value in values):
            raise ValueError(f"{name} is {values}, not three numbers from {least} to {MOST_MEAN}")
    return rules


def _require_size(folder: Path) -> None:
    sizes = [path.stat().st_size for name in NAMES if (path := folder / name).exists()]
    if sum(sizes) > MAX_BYTES:
        raise ArtifactError(
            f"{folder}: its files have {sum(sizes)} bytes; at most {MAX_BYTES} are allowed"
        )


def _id(folder: Path, compute: dict[str, Any]) -> str:
    canonical = json.dumps(compute, sort_keys=True, separators=(",", ":"))
    with (folder / WEIGHTS).open("rb") as file:
        hashed = hashlib.file_digest(file, "sha256")
    hashed.update(canonical.encode())
    return hashed.hexdigest()


def _codebook(found: Weights, shape: tuple[int, int, int], score: Score, path: Path) -> Codebook:
    Z, means, classes = (_floats(found, name) for name in ("Z", "means", "classes"))
    if Z is None or Z.shape != shape:
        raise ArtifactError(f"{path}: Z is not a table {shape} of codewords")
    if score == COSINE:
        if not np.allclose(np.linalg.norm(Z, axis=-1), 1, atol=UNIT_TOLERANCE):
            raise ArtifactError(f"{path}: Z is not a table {shape} of unit codewords")
    elif means is not None or classes is not None:
        raise ArtifactError(f"{path}: means and classes need the score {COSINE}, not {score}")
    elif score == "hamming" and not (
        shape[2] == SIGNS_OF_A_WORD and np.array_equal(Z, sign_words(shape[0]))
    ):
        raise ArtifactError(f"{path}: with the score hamming, Z is the 16 words of four signs")
    elif not (np.abs(Z) <= MOST_WORD).all():
        raise ArtifactError(f"{path}: Z has numbers above {MOST_WORD:g}")
    if means is not None and not (means.shape == shape and _at_most_unit(means)):
        raise ArtifactError(f"{path}: means are not {shape} vectors of at most length 1")
    if classes is not None and not (
        classes.ndim == 3 and classes.shape[::2] == shape[::2] and _at_most_unit(classes)
    ):
        raise ArtifactError(
            f"{path}: classes are not {(shape[0], 'L', shape[2])} vectors of at most length 1"
        )
    return Codebook(Z, means, classes, score)


def _floats(found: Weights, name: str) -> NDArray[np.float32] | None:
    tensor = found.tensors.get(name)
    return None if tensor is None else np.array(tensor, dtype=np.float32)


def _at_most_unit(vectors: NDArray[np.float32]) -> bool:
    return bool((np.linalg.norm(vectors, axis=-1) <= 1 + UNIT_TOLERANCE).all())


def _checked_graph(
    folder: Path, config: dict[str, Any], found: Weights, size: int, dimension: int
) -> Cost | None:
    path, named = folder / GRAPH, config["compute"].get("graph")
    try:
        network = path.read_bytes() if path.stat().st_size <= graph.MAX_GRAPH_BYTES else b""
    except FileNotFoundError as error:
        if config["format"] >= FORMAT:
            raise ArtifactError(f"{path}: the file is missing") from error
        return None
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}") from error
    if not network:
        raise ArtifactError(f"{path}: empty, or larger than {graph.MAX_GRAPH_BYTES} bytes")
    if named not in (None, digest(network)):
        raise ArtifactError(f"{path}: not the graph that {CONFIG} names in 'compute'")
    if importlib.util.find_spec("onnx") is None:  # as on a machine that only trains
        return None
    try:
        return graph.check(network, found, size, dimension)
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error


def _replace(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)
