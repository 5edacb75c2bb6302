"""Saves and loads artifacts: folders with ``model.safetensors`` and ``config.json``, no pickle.

config.json
    format   int, version of the format: 2 added optional means of codes, 3 of classes
    compute  everything that determines a code: M, K, d, network, preprocess
    about    information for people: classes, training, data, measured, golden vectors
The id of a model is sha256(model.safetensors ‖ canonical JSON of ``compute``), so that measuring
a model again does not change its id.
"""

import base64
import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from gpq.errors import ArtifactError, ImageError
from gpq.model import network
from gpq.model.codebook import Codebook, K, unpack
from gpq.model.model import Model
from gpq.pixels import decode, preprocess
from gpq.system.files import replacing

FORMAT = 3
READABLE = (1, 2, FORMAT)
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
GOLDEN_MARGIN = 1e-3  # difference in cosine between the best and the second codeword
GOLDEN_COUNT = 8
MAX_CONFIG_BYTES = 4 * 2**20


def save(
    folder: Path,
    net: nn.Module,
    codebook: Codebook,
    compute_network: dict[str, Any],
    rules: preprocess.Preprocess,
    about: dict[str, Any],
    examples: NDArray[np.uint8],
) -> str:
    """Writes an artifact and returns its id.

    ``examples``: images (N,3,S,S) uint8, from which the golden vectors are chosen.
    Raises ArtifactError if no example's code is at least GOLDEN_MARGIN away from another code.
    """
    Z = torch.tensor(codebook.Z).contiguous()
    compute = {
        "M": Z.shape[0],
        "K": Z.shape[1],
        "d": Z.shape[2],
        "network": compute_network,
        "preprocess": asdict(rules),
    }
    tensors = {f"F.{name}": t.detach().cpu().contiguous() for name, t in net.state_dict().items()}
    for name, more in (("means", codebook.means), ("classes", codebook.classes)):
        if more is not None:
            tensors[name] = torch.tensor(more).contiguous()
    weights = save_tensors({**tensors, "Z": Z})
    config: dict[str, Any] = {"format": FORMAT, "compute": compute, "about": about}
    model = _assemble(weights, config, torch.device("cpu"), folder)
    config["about"] = {**about, "golden": _golden(model, examples)}
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS, weights)
    write_config(folder, config)
    return model.id


def load(folder: Path, device: torch.device | str = "cpu") -> Model:
    """Loads and verifies an artifact.

    Raises ArtifactError, which names the file and the reason.
    """
    weights, config = _read(folder)
    model = _assemble(weights, config, torch.device(device), folder)
    verify(model, folder)
    return model


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


def model_id(weights: bytes, compute: dict[str, Any]) -> str:
    """Returns the SHA-256, in hex, of the weights file and the canonical JSON of ``compute``."""
    canonical = json.dumps(compute, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(weights + canonical.encode()).hexdigest()


def verify(model: Model, folder: Path) -> None:
    """Encodes the golden images and raises ArtifactError if a code differs from the stored one."""
    path = folder / CONFIG
    golden = model.about.get("golden")
    if not isinstance(golden, list) or not golden:
        raise ArtifactError(f"{path}: 'about' has no golden vectors to verify the model with")
    for number, vector in enumerate(golden):
        try:
            image = decode.load(base64.b64decode(vector["png"], validate=True))
            expected = [int(c) for c in vector["code"]]
        except (ImageError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}: golden vector {number} is damaged: {error}") from error
        try:
            code = _codes(model, model.prepare(image)[None])[0].tolist()
        except RuntimeError as error:
            raise ArtifactError(f"{path}: the network cannot encode an image: {error}") from error
        if code != expected:
            raise ArtifactError(
                f"{folder / WEIGHTS}: golden vector {number} encodes to {code}, not {expected}: "
                "the weights are damaged, or this machine computes other values"
            )


def _codes(model: Model, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return unpack(model.encode(pixels), model.codebook.M)


def _golden(model: Model, examples: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Returns the examples with the largest margins to another code, one for each code."""
    margins = model.codebook.margin(model.features(examples).cpu().numpy())
    codes = _codes(model, examples)
    chosen: list[dict[str, Any]] = []
    for row in (-margins).argsort(kind="stable").tolist():
        code = codes[row].tolist()
        if margins[row] < GOLDEN_MARGIN or len(chosen) == GOLDEN_COUNT:
            break
        if code in [vector["code"] for vector in chosen]:
            continue
        png = io.BytesIO()
        Image.fromarray(examples[row].transpose(1, 2, 0)).save(png, "PNG")
        chosen.append({"png": base64.b64encode(png.getvalue()).decode(), "code": code})
    if not chosen:
        raise ArtifactError(
            f"no example's code is at least {GOLDEN_MARGIN} away from another code: the largest "
            f"margin of {len(examples)} is {margins.max().item():.2g}; the codewords coincide"
        )
    return chosen


def _read(folder: Path) -> tuple[bytes, dict[str, Any]]:
    config = read_config(folder)
    try:
        return (folder / WEIGHTS).read_bytes(), config
    except OSError as error:
        raise ArtifactError(f"{folder / WEIGHTS}: {error.strerror or error}") from error


def _assemble(weights: bytes, config: dict[str, Any], device: torch.device, folder: Path) -> Model:
    compute = config["compute"]
    try:
        shape = tuple(int(compute[name]) for name in ("M", "K", "d"))
        rules = preprocess.Preprocess.from_config(compute["preprocess"])
        described = compute["network"]
        dimensions = described["name"], shape[0] * shape[2], described["width"]
        with torch.device("meta"):  # counts the values without allocating memory for them
            values = sum(p.numel() for p in network.build(*dimensions).parameters())
        if values > len(weights):
            raise ValueError(
                f"the network has {values} values, but {WEIGHTS} has only {len(weights)} bytes"
            )
        net = network.build(*dimensions)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ArtifactError(f"{folder / CONFIG}: 'compute' is wrong: {error!r}") from error
    if shape[1] != K:
        raise ArtifactError(f"{folder / CONFIG}: K is {shape[1]}; this version supports only {K}")
    try:
        tensors = load_tensors(weights)
        Z, means, classes = (tensors.pop(name, None) for name in ("Z", "means", "classes"))
        net.load_state_dict({name.removeprefix("F."): t for name, t in tensors.items()})
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"{folder / WEIGHTS}: {error}") from error
    if (
        Z is None
        or Z.shape != shape
        or not torch.allclose(Z.norm(dim=-1), torch.ones(shape[:2]), atol=1e-4)
    ):
        raise ArtifactError(f"{folder / WEIGHTS}: Z is not a table {shape} of unit codewords")
    if means is not None and not (means.shape == shape and _at_most_unit(means)):
        raise ArtifactError(
            f"{folder / WEIGHTS}: means are not {shape} vectors of at most length 1"
        )
    if classes is not None and not (
        classes.ndim == 3 and classes.shape[::2] == shape[::2] and _at_most_unit(classes)
    ):
        raise ArtifactError(
            f"{folder / WEIGHTS}: classes are not {(shape[0], 'L', shape[2])} vectors of at most "
            "length 1"
        )
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise ArtifactError(f"{folder / WEIGHTS}: a weight is not a finite number")
    net = net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    about = config.get("about") if isinstance(config.get("about"), dict) else {}
    return Model(
        id=model_id(weights, compute),
        rules=rules,
        network=net.requires_grad_(False),
        codebook=Codebook(
            Z.numpy(),
            None if means is None else means.numpy(),
            None if classes is None else classes.numpy(),
        ),
        about=about or {},
        device=device,
    )


def _at_most_unit(vectors: Tensor) -> bool:
    return bool((vectors.norm(dim=-1) <= 1 + 1e-4).all())


def _replace(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)
