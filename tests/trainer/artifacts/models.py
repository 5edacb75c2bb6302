"""Makes models of earlier formats for the tests of artifacts."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from gpq.model.artifact import CONFIG
from gpq.model.graph import GRAPH
from gpq.model.weights import WEIGHTS


def make_older(source: Path, folder: Path, number: int) -> Path:
    """Copies an artifact as one of an earlier format, which has no graph; returns the folder.

    Format 2 has means of codes, format 3 also means of classes.
    """
    folder.mkdir(parents=True)
    tensors = load((source / WEIGHTS).read_bytes())
    M, _, d = tensors["Z"].shape
    random = np.random.default_rng(0)
    if number >= 2:
        tensors["means"] = tensors["Z"] * np.float32(0.9)
    if number >= 3:
        tensors["classes"] = random.uniform(-0.2, 0.2, (M, 3, d)).astype(np.float32)
    (folder / WEIGHTS).write_bytes(save(tensors))
    shutil.copy(source / CONFIG, folder)

    def change(config: dict[str, Any]) -> None:
        config["format"] = number
        config["compute"].pop("graph", None)

    edit(folder, change)
    assert not (folder / GRAPH).exists()
    return folder


def edit(folder: Path, change: Any) -> None:
    """Changes config.json. ``change``: takes the parsed file and changes it in place."""
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of all files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
