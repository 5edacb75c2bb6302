"""Reads, loads and verifies artifacts, from folders and from the database."""

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
    """Returns the folder of a model, relative to the current folder or else to the program's.

    Raises ArtifactError if neither exists.
    """
    elsewhere = ROOT / folder
    if folder.exists() or folder.absolute() == elsewhere:
        return folder
    if not elsewhere.exists():
        raise ArtifactError(
            f"there is no model in {folder.absolute()}, and none in {elsewhere}; name the "
            "folder of a model"
        )
    return elsewhere


def read(folder: Path) -> dict[str, bytes]:
    """Reads the files of an artifact, by name. Raises OSError."""
    return {name: (folder / name).read_bytes() for name in NAMES}


def load(files: Mapping[str, bytes], device: str) -> Model:
    """Loads and verifies an artifact from its files, as ``use`` does.

    Raises ArtifactError, and KeyError if a file is missing.
    """
    with TemporaryDirectory(prefix="gpq-model-") as folder:
        for name in NAMES:
            (Path(folder) / name).write_bytes(files[name])
        try:
            return use(Path(folder), device)
        except ArtifactError as error:  # the temporary folder means nothing to the caller
            raise ArtifactError(str(error).replace(f"{folder}/", "")) from error


def use(folder: Path, device: str) -> Model:
    """Loads a model from its folder, verified with the engine that will run it.

    The model is on the CPU if the device has too little memory. Raises ArtifactError.
    """
    model = _load(folder, device)
    if model.device.type != device:
        return model  # an engine of the CPU could not move to the device later
    faster = in_one_call(model)
    try:
        artifact.verify(faster, folder)
    except ArtifactError as error:
        log.warning("the network runs layer by layer, because the faster engine fails: %s", error)
        return model
    return faster


def _load(folder: Path, device: str) -> Model:
    try:
        return artifact.load(folder, device)
    except (ArtifactError, RuntimeError) as error:
        if device == "cpu" or not out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
    torch.cuda.empty_cache()
    log.warning("the model in %s is on the CPU for now: %s", folder, reason)
    return artifact.load(folder, "cpu")
