"""NINH: network in network hashing (Lai, Pan, Liu & Yan, CVPR 2015)."""

import torch
from torch import Tensor, nn

from trainer.methods.base import Coder, Lesson, signs_of
from trainer.methods.deep.learning import ANCHORS, Learner, Standardise
from trainer.methods.deep.similarity import alike, squared_distances, triplets

SLICE = 50  # features of each bit
MARGIN = 1.0
EDGE = 0.25  # epsilon of the piece-wise threshold


class NINH(Learner):
    """A triplet ranking loss on relaxed codes of a divide-and-encode layer: each bit sees a slice
    of the features alone, and is pressed to 0 or 1 by a threshold that is linear in between.

    Deviations: the network in network under it is replaced by the given features and one layer; an
    image counts as similar to itself, too.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.layers = DivideAndEncode(self.E, self.bits)

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        bits = pressed(torch.sigmoid(self.layers(x)))
        anchors = slice(ANCHORS)
        return triplets(squared_distances(bits[anchors], bits), alike(y[anchors], y), MARGIN)

    def coder(self, standard: Standardise) -> Coder:
        return signs_of(nn.Sequential(standard, self.layers), self.bits)


class DivideAndEncode(nn.Sequential):
    """Features (B,E) -> logits (B,q) of bits, each from SLICE features of its own."""

    def __init__(self, E: int, q: int) -> None:
        super().__init__(
            nn.Linear(E, SLICE * q),
            nn.ReLU(),
            nn.Unflatten(1, (SLICE * q, 1)),
            nn.Conv1d(SLICE * q, q, kernel_size=1, groups=q),
            nn.Flatten(),
        )


def pressed(s: Tensor) -> Tensor:
    """0 below 1/2 - EDGE, 1 above 1/2 + EDGE, and s between."""
    return torch.where(s < 0.5 - EDGE, 0.0, torch.where(s > 0.5 + EDGE, 1.0, s))
