"""Reads NUS-WIDE (Chua et al. 2009) in the layout its authors publish.

ImageList/Imagelist.txt                     one name per line, folder\\file
Groundtruth/AllLabels/Labels_<concept>.txt  0 or 1 on each line
Flickr/<folder>/<file>                      the images; missing ones are skipped
"""

from pathlib import Path, PureWindowsPath

import numpy as np
import torch
from torch import Tensor

from gpq.pixels.preprocess import Preprocess
from trainer.data.protocol import Split
from trainer.data.reading import read_images
from trainer.errors import TrainerError

CONCEPTS = 21  # the most frequent ones
QUERIES_PER_CONCEPT = 100
LABELLED_PER_CONCEPT = 500
LIST = Path("ImageList") / "Imagelist.txt"
LABELS = Path("Groundtruth") / "AllLabels"


def all_images(root: Path, rules: Preprocess) -> tuple[Tensor, Tensor, tuple[str, ...], list[str]]:
    """Reads the images that have one of the most frequent concepts.

    Returns pixels (N,3,S,S) uint8, labels (N,C) uint8, the concepts, and a line for each image
    that was skipped. Raises TrainerError if the lists are missing or disagree.
    """
    try:
        names = (root / LIST).read_text().split()
        files = sorted((root / LABELS).glob("Labels_*.txt"))
        columns = [np.loadtxt(file, dtype=np.uint8, ndmin=1) for file in files]
    except (OSError, ValueError) as error:
        raise TrainerError(f"{root} is not NUS-WIDE: {error}") from error
    if not files or any(len(column) != len(names) for column in columns):
        raise TrainerError(
            f"{root} is not NUS-WIDE: each file in {LABELS} needs {len(names)} lines, as many as "
            f"{LIST} has"
        )
    table = np.stack(columns, axis=1)
    frequent = np.sort(np.argsort(-table.sum(axis=0, dtype=np.int64), kind="stable")[:CONCEPTS])
    concepts = tuple(files[c].stem.removeprefix("Labels_") for c in frequent)
    wanted = np.flatnonzero(table[:, frequent].any(axis=1))
    paths = [root / "Flickr" / PureWindowsPath(names[row]) for row in wanted]
    pixels, kept, skipped = read_images(paths, rules, "NUS-WIDE")
    return pixels, torch.from_numpy(table[wanted[kept]][:, frequent]), concepts, skipped


def protocol_1(labels: Tensor) -> Split:
    """Draws 100 queries and 500 labelled images of each concept, the rarest concept first.

    The seed is fixed, and no image is drawn twice. All others are both unlabelled and the
    database.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    part = torch.zeros(len(labels), dtype=torch.int64)  # 1: query, 2: labelled, 0: neither
    for concept in labels.sum(dim=0).argsort(stable=True).tolist():
        free = order[(labels[order, concept] == 1) & (part[order] == 0)]
        part[free[:QUERIES_PER_CONCEPT]] = 1
        part[free[QUERIES_PER_CONCEPT:][:LABELLED_PER_CONCEPT]] = 2
    rest = (part == 0).nonzero().flatten()
    return Split(
        queries=(part == 1).nonzero().flatten(),
        labelled=(part == 2).nonzero().flatten(),
        unlabelled=rest,
        database=rest,
        seen=torch.arange(labels.shape[1]),
    )
