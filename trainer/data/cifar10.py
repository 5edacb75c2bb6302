"""Reads CIFAR-10 and divides it by protocol 1 of the GPQ paper."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gpq.pixels.preprocess import Preprocess
from trainer.data.listing import class_folders
from trainer.data.protocol import Split
from trainer.data.reading import read_images
from trainer.errors import TrainerError

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
QUERY_EVERY = 60
LABELLED_PER_CLASS = 500


def all_images(root: Path, rules: Preprocess) -> tuple[Tensor, Tensor]:
    """Returns all 60,000 images (N,3,S,S) uint8 and their classes (N,) int64, train before test.

    Reads a tree of image files or torchvision's Python batches. Raises TrainerError if ``root``
    has neither, or if an image cannot be read.
    """
    if (root / "cifar-10-batches-py").is_dir():
        return _batches(root, rules)
    if not (root / "train").is_dir() or not (root / "test").is_dir():
        raise TrainerError(
            f"{root} is not CIFAR-10: expected train/<class>/*.jpg and test/<class>/*.jpg, "
            "or torchvision's cifar-10-batches-py"
        )
    parts: list[tuple[Tensor, Tensor]] = []
    for part in ("train", "test"):
        listing = class_folders(root / part)
        if listing.classes != CLASSES:
            raise TrainerError(f"{root / part} has classes {listing.classes}, not CIFAR-10's")
        pixels, kept, skipped = read_images(listing.files, rules, part)
        if skipped:
            raise TrainerError(
                f"{root / part}: {len(skipped)} images cannot be read; the first is {skipped[0]}"
            )
        labels = [CLASSES.index(next(iter(listing.labels[row]))) for row in kept]
        parts.append((pixels, torch.tensor(labels)))
    return torch.cat([p for p, _ in parts]), torch.cat([t for _, t in parts])


def protocol_1(labels: Tensor) -> Split:
    """Divides the images by the paper's protocol 1.

    1,000 images are queries, 5,000 are labelled, and 54,000 are both unlabelled and the database.
    labels (N,) are in file order, train before test. The images are sorted by class, with a
    stable sort. Every 60th is a query; of the others, the first 500 of each class are labelled.
    """
    order = torch.argsort(labels, stable=True)
    is_query = torch.arange(len(order)) % QUERY_EVERY == 0
    rest = order[~is_query]
    labelled_parts, unlabelled_parts = [], []
    for label in range(len(CLASSES)):
        rows = rest[labels[rest] == label]
        labelled_parts.append(rows[:LABELLED_PER_CLASS])
        unlabelled_parts.append(rows[LABELLED_PER_CLASS:])
    database = torch.cat(unlabelled_parts)
    return Split(
        queries=order[is_query],
        labelled=torch.cat(labelled_parts),
        unlabelled=database,
        database=database,
        seen=torch.arange(len(CLASSES)),
    )


def _batches(root: Path, rules: Preprocess) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import CIFAR10  # slow to import, and only needed here

    pixels, labels = [], []
    for train in (True, False):
        try:
            part = CIFAR10(str(root), train=train)
        except RuntimeError as error:  # a file is missing or has another checksum
            raise TrainerError(f"{root / CIFAR10.base_folder}: {error}") from error
        pixels += [rules.pixels(Image.fromarray(array)) for array in part.data]
        labels += part.targets
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
