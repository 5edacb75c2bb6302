"""Checkpoints: all that a run needs to be resumed, in a file that is replaced atomically."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpq.system.files import replacing
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.recipes.base import Recipe
from trainer.training.best import Best

NAME = "checkpoint.pt"

Saved = dict[str, Any]


def save(
    folder: Path,
    config: Config,
    recipe: Recipe,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    best: Best,
    step: int,
    seconds: float,
) -> Path:
    """Writes ``folder``/checkpoint.pt; an older one stays until the new one is complete.

    Raises TrainerError if the file cannot be written.
    """
    path = folder / NAME
    contents = {
        "config": asdict(config),
        "data": recipe.data.fingerprint,
        "device": recipe.device.type,
        "model": recipe.model.state_dict(),
        "recipe": recipe.state(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "best": best.state(),
        "step": step,
        "seconds": seconds,
    }
    try:
        with replacing(path) as file:
            torch.save(contents, file)
    except RuntimeError as error:  # torch raises it if a write fails
        raise TrainerError(f"{path} cannot be written: is the disk full? ({error})") from error
    except OSError as error:
        raise TrainerError(f"{path} cannot be written: {error}") from error
    return path


def read(folder: Path, config: Config) -> Saved:
    """Reads the checkpoint in ``folder``.

    Raises TrainerError if it is missing, cannot be read, or is of a run with other settings.
    """
    path = folder / NAME
    if not path.is_file():
        raise TrainerError(f"--resume: there is no {path}: start without --resume")
    try:
        saved: Saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise TrainerError(f"--resume: {path} cannot be read: {error}") from error
    if not isinstance(saved, dict) or "config" not in saved or "best" not in saved:
        raise TrainerError(
            f"--resume: {path} is not a checkpoint of this version: start again with --overwrite"
        )
    now = asdict(config)
    different = [name for name in now if saved["config"].get(name) != now[name]]
    if different:
        was = ", ".join(f"{name}={saved['config'].get(name)}" for name in different)
        raise TrainerError(
            f"--resume: {path} was made with {was}: give the same options, or start again with "
            "--overwrite"
        )
    return saved


def restore(
    saved: Saved,
    recipe: Recipe,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    best: Best,
) -> None:
    """Restores the state of a run from its checkpoint.

    Raises TrainerError if the checkpoint is of other images or of another kind of device.
    """
    if saved["data"] != recipe.data.fingerprint:
        raise TrainerError(
            "--resume: the images or labels differ from the checkpoint's: give the same data, or "
            "start again with --overwrite"
        )
    if saved["device"] != recipe.device.type:
        raise TrainerError(
            f"--resume: the checkpoint is for --device {saved['device']}, not {recipe.device.type}"
        )
    model: nn.Module = recipe.model
    model.load_state_dict(saved["model"])
    recipe.load_state(saved["recipe"])
    optimiser.load_state_dict(saved["optimiser"])
    schedule.load_state_dict(saved["schedule"])
    best.load_state(saved["best"])
