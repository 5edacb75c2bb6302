"""Which pictures a step sees."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """labelled (L,3,S,S) uint8 and labels (L,C), unlabelled (U,3,S,S) uint8; known (U,C): labels
    of these where all have some, or what a teacher guessed."""

    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    known: Tensor | None

    def copy_(self, other: "Batch") -> None:
        """Another one's values, in the same memory."""
        self.labelled.copy_(other.labelled)
        self.labels.copy_(other.labels)
        self.unlabelled.copy_(other.unlabelled)
        if self.known is not None and other.known is not None:
            self.known.copy_(other.known)


class Batches:
    """Endless shuffled batches of ``rows``, one at least; each once before any repeats."""

    def __init__(self, rows: Tensor, batch: int, generator: torch.Generator) -> None:
        if not len(rows):
            raise ValueError("batches of no rows")
        self.rows, self.batch, self.generator = rows, batch, generator
        self.left = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """(batch,) int64."""
        while len(self.left) < self.batch:
            fresh = self.rows[torch.randperm(len(self.rows), generator=self.generator)]
            self.left = torch.cat([self.left, fresh])
        taken, self.left = self.left[: self.batch], self.left[self.batch :]
        return taken


def balanced_rows(labels: Tensor) -> Tensor:
    """labels (N,C), 1 for each class of a picture -> row numbers, those of rare classes
    repeated: a picture of a class with n pictures stands there about sqrt(most / n) times
    (Mahajan et al. 2018, section 2.2), so that classes of equal size stay as they are.
    """
    counts = labels.sum(dim=0, dtype=torch.float64).clamp(min=1)
    repeats = (counts.max() / counts).sqrt()
    of_row = (labels * repeats).amax(dim=1).round().long().clamp(min=1)
    return torch.arange(len(labels)).repeat_interleave(of_row.cpu())
