"""How a published data set is divided into queries, database, labelled and unlabelled."""

from dataclasses import dataclass

import torch
from torch import Tensor

UNSEEN_SHARE = 0.25  # of the classes, rounded up


@dataclass(frozen=True)
class Split:
    """Row numbers of the four parts; seen: the classes (columns) that labels are given of."""

    queries: Tensor
    labelled: Tensor
    unlabelled: Tensor
    database: Tensor
    seen: Tensor


def unseen_classes(labels: Tensor, seed: int) -> Split:
    """The paper's protocol 2, after Sablayrolles et al. 2017: search for classes without labels.

    labels (N,C) uint8. A quarter of the classes is unseen, drawn by ``seed``: 3 of 10, 6 of
    21. Every class is halved in file order. Of the seen classes the first half is labelled,
    of the unseen ones the second half are the queries; all else is the database, and the
    unlabelled pictures of training. A picture with any unseen class counts as unseen, and in
    the half of the first of its classes.
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
