"""Reads ``model.safetensors``: the tensors of a network, of the codebooks and of their means."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from gpq.errors import ArtifactError

WEIGHTS = "model.safetensors"
NETWORK_PREFIX = "F."  # of the names of the network's own tensors
LENGTH_BYTES = 8  # of the number before the header
# The names that ONNX and numpy have for each allowed type of safetensors.
TYPES = {
    "F32": ("FLOAT", "<f4"),
    "F16": ("FLOAT16", "<f2"),
    "I64": ("INT64", "<i8"),
    "I32": ("INT32", "<i4"),
}


@dataclass(frozen=True)
class Place:
    """Where a tensor stands in the file: its offset and length in bytes.

    ``kind``: the name that ONNX has for its type. ``shape``: its dimensions.
    """

    offset: int
    length: int
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, by name.

    ``tensors``: read-only arrays, which are read from the file when they are used. ``places``:
    where they stand in the file.
    """

    tensors: Mapping[str, NDArray[np.generic]]
    places: Mapping[str, Place]

    def network(self) -> dict[str, NDArray[np.generic]]:
        """Returns the tensors of the network, by their names without NETWORK_PREFIX."""
        return {
            name.removeprefix(NETWORK_PREFIX): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(NETWORK_PREFIX)
        }


def read(path: Path) -> Weights:
    """Reads a file and checks that all its values are finite numbers.

    Raises ArtifactError, which names the file and the reason.
    """
    try:
        with safe_open(path, framework="numpy"):
            pass  # checks the header, and that the tensors fill the file without gaps
        content = np.memmap(path, dtype=np.uint8, mode="r")
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path}: {error}") from error
    start = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES].tobytes(), "little")
    header = json.loads(content[LENGTH_BYTES:start].tobytes())
    header.pop("__metadata__", None)
    tensors: dict[str, NDArray[np.generic]] = {}
    places: dict[str, Place] = {}
    for name, entry in header.items():
        if entry["dtype"] not in TYPES:
            raise ArtifactError(
                f"{path}: the tensor {name!r} is {entry['dtype']}; supported are {', '.join(TYPES)}"
            )
        kind, dtype = TYPES[entry["dtype"]]
        first, last = (start + offset for offset in entry["data_offsets"])
        shape = tuple(entry["shape"])
        if 0 in shape:
            raise ArtifactError(f"{path}: {name!r} has the shape {shape}, and no values")
        tensors[name] = content[first:last].view(dtype).reshape(shape)
        places[name] = Place(first, last - first, kind, shape)
        if not np.isfinite(tensors[name]).all():
            raise ArtifactError(f"{path}: {name!r} has a value that is not a finite number")
    return Weights(tensors, places)
