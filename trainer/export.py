"""From trained weights to an artifact, and back for ``--init``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gpq import artifact
from gpq.codebook import Codebook
from gpq.model import Model
from gpq.preprocess import Preprocess
from trainer import losses
from trainer.config import Config
from trainer.data import TrainingSet
from trainer.errors import TrainerError
from trainer.model import GPQ

EXAMPLES = 2048
CARDS = {
    "cifar10": {
        "name": "CIFAR-10 (Krizhevsky 2009), protocol 1 of the GPQ paper",
        "licence": "for research; the pictures were collected from the web",
    },
    "folder": {"name": "a folder of pictures", "licence": "as the pictures'"},
}
COINCIDENT_COSINE = 0.999  # between codewords that then do the work of one


def export(
    model: GPQ,
    config: Config,
    rules: Preprocess,
    data: TrainingSet,
    folder: Path,
    training: dict[str, Any],
) -> str:
    """Write the artifact of ``model`` to ``folder``; returns its id. Z' ships, C does not."""
    with torch.no_grad():
        codebook = Codebook(separate(model.codewords().cpu()))
    every = max(1, len(data.labelled) // EXAMPLES)
    about = {
        "classes": list(data.classes),
        "training": {**asdict(config), **training},
        "data": {
            **CARDS[config.dataset],
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


def separate(Z: Tensor) -> Tensor:
    """Z' (M,K,d) with coincident codewords merged into the first of them.

    Prototypes draw several codewords to one place; which of them a picture gets would
    then hang on the last bits of a float. A merged one moves to the coordinate axis,
    either way along it, that is furthest from all others.
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


def start_from(model: GPQ, source: Model, data: TrainingSet, config: Config) -> None:
    """Set F and Z from an artifact, and C to the class means of its features.

    The modern recipe then starts the codewords of the classes at these means.

    Raises TrainerError where the artifact is of another network or code length.
    """
    if source.codebook.Z.shape != model.Z.shape:
        raise TrainerError(
            f"--init: the artifact has codebooks {tuple(source.codebook.Z.shape)}, "
            f"this run {tuple(model.Z.shape)}; give the same --bits"
        )
    if source.rules.size != config.size:
        raise TrainerError(f"--init: the artifact reads {source.rules.size} px, not {config.size}")
    try:
        model.F.load_state_dict(source.network.state_dict())
    except RuntimeError as error:
        raise TrainerError(f"--init: another network than this run's: {error}") from error
    x = torch.cat(
        [
            model.class_part(model.sub_vectors(source.features(batch).clone()))
            for batch in torch.split(data.labelled, 256)
        ]
    )
    of_class = losses.class_target(data.labels.to(x.device)).T
    with torch.no_grad():
        model.Z.copy_(source.codebook.Z)
        model.C.copy_(functional.normalize(torch.einsum("lb,bmd->mld", of_class, x), dim=-1))
