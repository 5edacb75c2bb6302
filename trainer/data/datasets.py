"""Loads published data sets by name, divided by one of the two protocols of the GPQ paper.

cifar10, nuswide                       protocol 1
cifar10-unseen-0 … -4, nuswide-…       protocol 2, five draws of the unseen classes
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from gpq.pixels.preprocess import Preprocess
from trainer.data import cifar10, nuswide
from trainer.data.protocol import Split, unseen_classes

FOLDER = "folder"
DRAWS = 5
NAMES = tuple(
    name
    for dataset in ("cifar10", "nuswide")
    for name in (dataset, *(f"{dataset}-unseen-{draw}" for draw in range(DRAWS)))
)
SOURCES = {
    "cifar10": {
        "name": "CIFAR-10 (Krizhevsky 2009)",
        "licence": "for research; the images were collected from the web",
    },
    "nuswide": {
        "name": "NUS-WIDE (Chua et al. 2009)",
        "licence": "for research; the images belong to their photographers",
    },
    FOLDER: {"name": "a folder of images", "licence": "that of the images"},
}


@dataclass(frozen=True)
class Dataset:
    """A published data set: pixels (N,3,S,S) uint8, labels (N,C) uint8."""

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    split: Split
    skipped: list[str] = field(default_factory=list)


def load(root: Path, name: str, rules: Preprocess) -> Dataset:
    """Loads the data set called ``name`` from the folder ``root``. Raises TrainerError."""
    published, _, draw = name.partition("-unseen-")
    if published == "cifar10":
        pixels, of_class = cifar10.all_images(root, rules)
        labels = functional.one_hot(of_class, len(cifar10.CLASSES)).to(torch.uint8)
        split = unseen_classes(labels, int(draw)) if draw else cifar10.protocol_1(of_class)
        return Dataset(pixels, labels, cifar10.CLASSES, split)
    pixels, labels, concepts, skipped = nuswide.all_images(root, rules)
    split = unseen_classes(labels, int(draw)) if draw else nuswide.protocol_1(labels)
    return Dataset(pixels, labels, concepts, split, skipped)


def provenance(name: str) -> dict[str, str]:
    """Returns what an artifact records about the data set ``name`` it was trained on."""
    if name == FOLDER:
        return SOURCES[FOLDER]
    return {**SOURCES[name.partition("-unseen-")[0]], "protocol": protocol(name)}


def protocol(name: str) -> str:
    """Returns the protocol of ``name`` in words."""
    published, _, draw = name.partition("-unseen-")
    if name == FOLDER:
        return "a folder of the user's"
    return f"{published} protocol 2, draw {draw}" if draw else f"{published} protocol 1"
