"""Artifacts on their way between folders and the database."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from gpq import artifact
from gpq.inference import in_one_call
from gpq.model import Model

NAMES = (artifact.CONFIG, artifact.WEIGHTS)


def read(folder: Path) -> dict[str, bytes]:
    """The files of an artifact, by name; raises OSError."""
    return {name: (folder / name).read_bytes() for name in NAMES}


def load(files: Mapping[str, bytes], device: torch.device) -> Model:
    """Load and verify an artifact, as ``use`` does; raises gpq.errors.ArtifactError."""
    with TemporaryDirectory(prefix="gpq-model-") as folder:
        for name in NAMES:
            (Path(folder) / name).write_bytes(files[name])
        return use(Path(folder), device)


def use(folder: Path, device: torch.device) -> Model:
    """A model to encode with, verified; raises gpq.errors.ArtifactError."""
    return in_one_call(artifact.load(folder, device))
