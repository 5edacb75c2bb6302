"""Recomputes the means of a finished model's codes and classes from other images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gpq.engine import engines
from gpq.model import artifact
from gpq.model.model import Model
from trainer.artifacts.export import MAX_AVERAGED, with_means
from trainer.artifacts.saving import derive, require_free
from trainer.config import DISTILLED
from trainer.data.image_sets import training_set
from trainer.data.skipped import print_skipped
from trainer.errors import TrainerError, writing

BATCH = 64


def refit(source: Path, data: Path, dataset: str, folder: Path, *, overwrite: bool = False) -> str:
    """Writes ``source`` with means computed from the images of ``data``; returns the new id.

    The codes stay the same; the scores become those expected among such images. Means of codes that
    were learnt (``GPQ.means``) stay; those of classes are computed. Raises
    TrainerError if ``folder`` has a model and ``overwrite`` is false, or if codes are not compared
    by cosines.
    """
    require_free(folder, overwrite=overwrite)
    model = engines.load(source)
    if model.codebook.score != "cosine":
        raise TrainerError(
            f"{source} compares codes by {model.codebook.score}, which needs no means: there is "
            "nothing to refit"
        )
    images = training_set(data, dataset, model.rules, MAX_AVERAGED)
    print_skipped(images.skipped)
    codebook = with_means(
        model.codebook,
        _features(model, images.unlabelled, "means of codes"),
        _features(model, images.labelled, "means of classes"),
        images.labels.numpy(),
    )
    if model.about.get("training", {}).get("recipe") == DISTILLED:
        codebook = replace(codebook, means=model.codebook.means)
    about = {**model.about, "measured": None, "refitted_from": {"id": model.id}}
    about["classes"] = list(images.classes)
    with writing(folder):
        return derive(artifact.load(source), folder, codebook, about)


def _features(model: Model, pixels: Tensor, what: str) -> NDArray[np.float32]:
    """Returns the features (N,D) of pixels (N,3,S,S) uint8. ``what``: a name for the bar."""
    parts = torch.split(pixels, BATCH)
    shown = tqdm(parts, desc=what, unit="batch", leave=False)
    return np.concatenate([model.features(part.numpy()) for part in shown])
