"""Artifacts on their way between folders and the database."""

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from gpq.engine.inference import in_one_call
from gpq.errors import ArtifactError
from gpq.model import artifact
from gpq.model.model import Model
from gpq.system.device import out_of_memory
from service.settings import ROOT

NAMES = (artifact.CONFIG, artifact.WEIGHTS)
log = logging.getLogger("gpq.service")


def find(folder: Path) -> Path:
    """A relative one here, or else where the program is: it need not run there, as in Docker.

    Raises ArtifactError where it is in neither.
    """
    elsewhere = ROOT / folder
    if folder.exists() or folder.absolute() == elsewhere:
        return folder
    if not elsewhere.exists():
        raise ArtifactError(
            f"there is no model {folder.absolute()}, and no {elsewhere}; name the folder of one"
        )
    return elsewhere


def read(folder: Path) -> dict[str, bytes]:
    """The files of an artifact, by name; raises OSError."""
    return {name: (folder / name).read_bytes() for name in NAMES}


def load(files: Mapping[str, bytes], device: torch.device) -> Model:
    """Load and verify an artifact, as ``use`` does; raises gpq.errors.ArtifactError."""
    with TemporaryDirectory(prefix="gpq-model-") as folder:
        for name in NAMES:
            (Path(folder) / name).write_bytes(files[name])
        try:
            return use(Path(folder), device)
        except ArtifactError as error:  # where its files are is nobody's business
            raise ArtifactError(str(error).replace(f"{folder}/", "")) from error


def use(folder: Path, device: torch.device) -> Model:
    """A model to encode with, verified as it is used; raises gpq.errors.ArtifactError. It is on
    the CPU where the device has no room for it."""
    model = _load(folder, device)
    if model.device != device:
        return model  # one that is made for the CPU could not go to the device later
    faster = in_one_call(model)
    try:
        artifact.verify(faster, folder)
    except ArtifactError as error:
        log.warning("the network runs layer by layer, as otherwise %s", error)
        return model
    return faster


def _load(folder: Path, device: torch.device) -> Model:
    try:
        return artifact.load(folder, device)
    except (ArtifactError, RuntimeError) as error:
        if device.type == "cpu" or not out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
    torch.cuda.empty_cache()
    log.warning("the model of %s is on the CPU for now: %s", folder, reason)
    return artifact.load(folder, "cpu")
