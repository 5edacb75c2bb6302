"""Draws the images of each step."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The images of one step.

    labelled (L,3,S,S) uint8 with labels (L,C), and unlabelled (U,3,S,S) uint8. known (U,C): the
    labels of the unlabelled images, if all images are labelled, or the predictions of a teacher.
    """

    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    known: Tensor | None

    def copy_(self, other: "Batch") -> None:
        """Copies the values of another batch into the memory of this one."""
        self.labelled.copy_(other.labelled)
        self.labels.copy_(other.labels)
        self.unlabelled.copy_(other.unlabelled)
        if self.known is not None and other.known is not None:
            self.known.copy_(other.known)


class Batches:
    """An endless series of shuffled batches of ``rows``, of which there must be at least one.

    Each row comes once before any row is repeated.
    """

    def __init__(self, rows: Tensor, batch: int, generator: torch.Generator) -> None:
        if not len(rows):
            raise ValueError("there are no rows to make batches of")
        self.rows, self.batch, self.generator = rows, batch, generator
        self.left = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        """Returns the rows of the next batch, (batch,) int64."""
        while len(self.left) < self.batch:
            fresh = self.rows[torch.randperm(len(self.rows), generator=self.generator)]
            self.left = torch.cat([self.left, fresh])
        taken, self.left = self.left[: self.batch], self.left[self.batch :]
        return taken


def balanced_rows(labels: Tensor) -> Tensor:
    """Returns row numbers in which images of rare classes are repeated.

    labels (N,C), 1 for each class of an image. If the largest class has m images, an image of a
    class with n images is repeated about sqrt(m / n) times (Mahajan et al. 2018, section 2.2).
    Classes of equal size are not repeated.
    """
    counts = labels.sum(dim=0, dtype=torch.float64).clamp(min=1)
    repeats = (counts.max() / counts).sqrt()
    of_row = (labels * repeats).amax(dim=1).round().long().clamp(min=1)
    return torch.arange(len(labels)).repeat_interleave(of_row.cpu())
