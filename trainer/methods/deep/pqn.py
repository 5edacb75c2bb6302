"""PQN: product quantization network (Yu, Yuan, Fang & Jin, ECCV 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpq.model.codebook import K
from trainer.components.assignment import intra_normalise
from trainer.methods.base import Coder, Lesson
from trainer.methods.deep.learning import ANCHORS, Learner, Standardise, products_of
from trainer.methods.deep.similarity import alike

DIMENSIONS = 512
ALPHA = 5.0


class PQN(Learner):
    """Sub-vectors of unit length, their soft quantisation s, and an asymmetric triplet loss between
    the sub-vectors of an anchor and the soft quantisations of others: log(1 + exp(<x, s-> - <x,
    s+>)). Deviation: an image counts as similar to itself, too.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        d = -(-DIMENSIONS // self.M)
        self.head = nn.Linear(self.E, self.M * d)
        self.words = nn.Parameter(functional.normalize(torch.randn(self.M, K, d), dim=2))

    def sub_vectors(self, x: Tensor) -> Tensor:
        return intra_normalise(self.head(x), self.M)

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        parts = self.sub_vectors(x)
        words = functional.normalize(self.words, dim=2)
        soft = torch.softmax(ALPHA * torch.einsum("bmd,mkd->bmk", parts, words), dim=2)
        s = torch.einsum("bmk,mkd->bmd", soft, words)
        anchors = slice(ANCHORS)
        return ranking(parts[anchors].flatten(1) @ s.flatten(1).T, alike(y[anchors], y))

    def coder(self, standard: Standardise) -> Coder:
        words = functional.normalize(self.words, dim=2)
        return products_of(standard, self.head, words, "cosine")


def ranking(scores: Tensor, similar: Tensor) -> Tensor:
    """Mean of log(1 + exp(s(a,n) - s(a,p))) over all anchors a, similar p and dissimilar n."""
    each = functional.softplus(scores[:, None, :] - scores[:, :, None])
    counted = similar[:, :, None] & ~similar[:, None, :]
    return (each * counted).sum() / counted.sum().clamp(min=1)
