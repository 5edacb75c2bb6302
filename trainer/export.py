"""Writes trained weights as an artifact, and starts a run from one for ``--init``."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from gpq.engine import torch_pixels
from gpq.model import artifact
from gpq.model.codebook import Codebook
from gpq.model.model import Model
from gpq.pixels.preprocess import Preprocess
from trainer.components.assignment import intra_normalise
from trainer.components.model import GPQ
from trainer.components.teacher import class_means, labelled_rows
from trainer.config import Config
from trainer.data.datasets import provenance
from trainer.data.image_sets import TrainingSet, spread
from trainer.errors import TrainerError

EXAMPLES = 2048  # images that the golden ones are chosen from
MAX_AVERAGED = 16_384  # images that the means of codes and of classes are computed from
COINCIDENT_COSINE = 0.999  # codewords nearer to each other than this count as one
LAST_LAYER = ("project.weight", "project.bias")
DEAD_LENGTH = 0.99  # a codebook is dead if the mean of its unit sub-vectors is longer


def export(
    model: GPQ,
    config: Config,
    rules: Preprocess,
    data: TrainingSet,
    folder: Path,
    training: dict[str, Any],
) -> str:
    """Writes the artifact of ``model`` to ``folder``; returns its id.

    The artifact has the codewords Z', but not the prototypes C.
    """
    with torch.no_grad():
        words = separate(model.codewords().float().cpu())
        codebook = with_means(Codebook(words.numpy()), model.F.eval(), data, rules)
    every = max(1, len(data.labelled) // EXAMPLES)
    about = {
        "classes": list(data.classes),
        "training": {**asdict(config), **training},
        "data": {
            **provenance(config.dataset),
            "labelled": len(data.labelled),
            "unlabelled": len(data.unlabelled),
            "skipped": len(data.skipped),
        },
        "measured": None,
    }
    return artifact.save(
        folder,
        model.F,
        codebook,
        {"name": config.network, "width": config.width},
        rules,
        about,
        data.labelled[::every][:EXAMPLES].cpu().numpy(),
    )


@torch.no_grad()
def with_means(
    codebook: Codebook, network: nn.Module, data: TrainingSet, rules: Preprocess
) -> Codebook:
    """Returns the codebook with means computed from ``data``.

    The means of codes are of its unlabelled images, the means of classes of its labelled ones.
    """
    rows, known = (
        spread(len(pixels), MAX_AVERAGED).to(pixels.device)
        for pixels in (data.unlabelled, data.labelled)
    )
    raw = _features(network, data.unlabelled, rows, rules, "means of codes")
    means = codebook.means_of(raw.cpu().numpy())
    raw = _features(network, data.labelled, known, rules, "means of classes")
    labelled = intra_normalise(raw, codebook.M)
    classes = class_means(labelled, data.labels[known].to(labelled.device))
    return replace(codebook, means=means, classes=classes.cpu().numpy())


def separate(Z: Tensor) -> Tensor:
    """Returns the codewords Z' (M,K,d) without coincident ones.

    Prototypes may draw several codewords to one place. Which of them an image gets would then
    depend on rounding. The first of them stays. Each of the others moves to the coordinate axis,
    in either direction, that is furthest from all codewords.
    """
    axes = torch.cat([torch.eye(Z.shape[2]), -torch.eye(Z.shape[2])])
    separated = Z.clone()
    for words in separated:
        kept: list[int] = []
        merged: list[int] = []
        for k in range(len(words)):
            same = len(kept) and bool((words[kept] @ words[k]).amax() > COINCIDENT_COSINE)
            (merged if same else kept).append(k)
        for k in merged:
            words[k] = axes[(axes @ words[kept].T).amax(dim=1).argmin()]
            kept.append(k)
    return separated


@torch.no_grad()
def start_from(model: GPQ, source: Model, data: TrainingSet, rules: Preprocess) -> None:
    """Sets F and Z from an artifact, and C to the means of the features of each class.

    The artifact may be for another image size and other classes. If its last layer has another
    shape, because of other bits or more features, that layer and Z keep their random values. So
    does the part of dead codebooks, which have no gradient that would turn them. The recipe
    ``modern`` then sets the codewords of classes to the means. Raises TrainerError if the artifact
    has another network.
    """
    rows = labelled_rows(data)
    weights = source.network.state_dict()
    drawn = {name: t.clone() for name, t in model.F.state_dict().items() if name in LAST_LAYER}
    same_features = drawn[LAST_LAYER[0]].shape == weights[LAST_LAYER[0]].shape
    if not same_features:
        weights = {name: t for name, t in weights.items() if name not in LAST_LAYER}
    try:
        missing = model.F.load_state_dict(weights, strict=same_features).missing_keys
    except RuntimeError as error:
        raise TrainerError(
            f"--init: the artifact has another network than this run: {error}"
        ) from error
    if set(missing).difference(LAST_LAYER):
        raise TrainerError(
            f"--init: the artifact has another network than this run: it lacks {missing[0]}"
        )
    was_training = model.training
    model.eval()
    if same_features:
        raw = _features(model.F, data.labelled, rows, rules, "dead codebooks")
        dead = _dead_codebooks(model.sub_vectors(raw))
        alive = [m for m in range(model.M) if m not in dead]
        model.Z[alive] = torch.tensor(source.codebook.Z[alive]).to(model.Z)
        shape = (model.M, -1)
        for name, first in drawn.items():
            taken = model.F.get_parameter(name)
            taken.view(shape)[dead] = first.view(shape)[dead]
    raw = _features(model.F, data.labelled, rows, rules, "means of classes")
    x = model.class_part(model.sub_vectors(raw))
    model.train(was_training)
    model.C.copy_(functional.normalize(class_means(x, data.labels[rows]), dim=-1))


def _features(
    network: nn.Module, pixels: Tensor, rows: Tensor, rules: Preprocess, what: str
) -> Tensor:
    """Returns the raw features (R,D) float32 of some rows of (N,3,S,S) uint8.

    They are on the network's device. ``what``: a name for the progress bar.
    """
    device = next(network.parameters()).device
    parts = []
    for part in tqdm(torch.split(rows, 256), desc=what, unit="batch", leave=False):
        images = torch_pixels.normalise(rules, pixels[part].to(device))
        parts.append(network(images.contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(parts)


def _dead_codebooks(x: Tensor) -> list[int]:
    """Returns the codebooks in which all of the (N,M,d) unit sub-vectors point in one direction."""
    return torch.nonzero(x.mean(dim=0).norm(dim=-1) > DEAD_LENGTH).flatten().tolist()
