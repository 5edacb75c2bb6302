"""Turns the classes of files into labels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gpq.pixels.preprocess import Preprocess
from trainer.data.listing import Listing
from trainer.data.reading import read_images


def read_labelled(
    listing: Listing, classes: Sequence[str], rules: Preprocess, what: str
) -> tuple[Tensor, Tensor, list[str]]:
    """Reads images; returns pixels (N,3,S,S), labels (N,C) uint8, and a line per skipped file."""
    pixels, kept, skipped = read_images(listing.files, rules, what)
    return pixels, labels_of(listing, classes)[kept], skipped


def labels_of(listing: Listing, classes: Sequence[str]) -> Tensor:
    """Returns labels (N,C) uint8, 1 for each class of a file."""
    position = {name: i for i, name in enumerate(classes)}
    labels = torch.zeros(len(listing), len(classes), dtype=torch.uint8)
    for row, names in enumerate(listing.labels):
        labels[row, [position[name] for name in names]] = 1
    return labels
