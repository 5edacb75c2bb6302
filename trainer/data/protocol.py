"""Divides a data set into queries, database, labelled and unlabelled images."""

from dataclasses import dataclass

import torch
from torch import Tensor

UNSEEN_SHARE = 0.25  # of the classes, rounded up


@dataclass(frozen=True)
class Split:
    """The row numbers of the four parts, and the classes (label columns) that training sees."""

    queries: Tensor
    labelled: Tensor
    unlabelled: Tensor
    database: Tensor
    seen: Tensor


def unseen_classes(labels: Tensor, seed: int) -> Split:
    """Divides images by the paper's protocol 2: queries are of classes training has no labels of.

    The protocol follows Sablayrolles et al. 2017. labels (N,C) uint8. A quarter of the classes is
    unseen, drawn by ``seed``: 3 of 10, 6 of 21. Each class is halved in file order. The first
    halves of the seen classes are labelled, the second halves of the unseen classes are the
    queries. All other images are both the database and the unlabelled images of training. An
    image with any unseen class counts as unseen; its first class decides in which half it is.
    """
    classes = labels.shape[1]
    count = -int(-classes * UNSEEN_SHARE // 1)
    drawn = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    unseen, seen = drawn[:count].sort().values, drawn[count:].sort().values
    is_unseen = labels[:, unseen].bool().any(dim=1)
    first_class = labels.argmax(dim=1)
    second_half = torch.zeros(len(labels), dtype=torch.bool)
    for c in range(classes):
        rows = (first_class == c).nonzero().flatten()
        second_half[rows[len(rows) // 2 :]] = True
    queries = (is_unseen & second_half).nonzero().flatten()
    labelled = (~is_unseen & ~second_half).nonzero().flatten()
    rest = (is_unseen != second_half).nonzero().flatten()
    return Split(queries, labelled, rest, rest, seen)
