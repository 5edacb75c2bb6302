"""SSDH: semi-supervised deep hashing (Zhang & Peng, IEEE TCSVT 2019)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.methods.base import Lesson
from trainer.methods.deep.learning import ANCHORS, SignLearner
from trainer.methods.deep.similarity import alike, squared_distances, triplets

MARGIN, APART = 0.5, 0.25  # mean squared differences of bits
NEIGHBOURS = 5  # in the graph of a batch
EMBEDDING, PSEUDO = 0.1, 0.1  # weights of the losses of unlabelled images


class SSDH(SignLearner):
    """Three losses on relaxed codes: a triplet ranking of labelled images, an embedding loss by the
    graph of nearest neighbours of a batch, and a pseudo-label loss of unlabelled images.

    The graph is built from the given features of each batch, labelled and not: neighbours come
    together, others keep a distance. A classifier beside the codes learns from the labels and, on
    unlabelled images, from its own likeliest class. Deviation: in triplets, an image counts as
    similar to itself, too.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.classes = nn.Linear(self.bits, self.C)

    def relaxed(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(x))

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        h, g = self.relaxed(x), self.relaxed(u)
        anchors = slice(ANCHORS)
        distances = squared_distances(h[anchors], h) / self.bits
        found = triplets(distances, alike(y[anchors], y), MARGIN)
        target = y / y.sum(dim=1, keepdim=True).clamp(min=1)
        found = found + functional.cross_entropy(self.classes(h), target)
        seen, codes = torch.cat([x, u]), torch.cat([h, g])
        embedding = contrastive(squared_distances(codes, codes) / self.bits, neighbours(seen))
        guessed = self.classes(g)
        pseudo = functional.cross_entropy(guessed, guessed.detach().argmax(dim=1))
        return found + EMBEDDING * embedding + PSEUDO * pseudo


def neighbours(seen: Tensor) -> Tensor:
    """Features (B,E) -> (B,B) bool: whether one is among the other's NEIGHBOURS nearest."""
    distances = squared_distances(seen, seen)
    distances.fill_diagonal_(torch.inf)
    near = torch.zeros(len(seen), len(seen), dtype=torch.bool)
    count = min(NEIGHBOURS, len(seen) - 1)
    near.scatter_(1, distances.topk(count, largest=False).indices, True)
    return near | near.T


def contrastive(distances: Tensor, near: Tensor) -> Tensor:
    """d for neighbours and max(0, margin - d) for others: the sum of the two means, of different
    images. distances, near (B,B)."""
    others = ~near & ~torch.eye(len(near), dtype=torch.bool)
    apart = (APART - distances).clamp(min=0)
    return distances[near].mean() + apart[others].mean()
