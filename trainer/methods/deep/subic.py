"""SUBIC: structured binary codes (Jain, Zepeda, Pérez & Gribonval, ICCV 2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpq.model.codebook import K
from trainer.methods.base import Coder, Lesson
from trainer.methods.deep.learning import Learner, Standardise, products_of

MEAN_ENTROPY, BATCH_ENTROPY = 0.02, 0.1  # weights of the two entropies


class SUBIC(Learner):
    """Blocks of 16 numbers, each a softmax, of which a code keeps the largest.

    The loss is that of a classifier on the blocks, plus the mean entropy of blocks, which makes
    them one-hot, minus the entropy of the mean block, which makes all codes likely. A query keeps
    its softmax: the score of a code is the sum of the probabilities it names. The codewords are the
    unit vectors, of which the nearest one is that of the largest number.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.blocks = nn.Sequential(
            nn.Linear(self.E, self.M * K), nn.Unflatten(1, (self.M, K)), nn.Softmax(dim=2)
        )
        self.classes = nn.Linear(self.M * K, self.C)

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        z = self.blocks(x)
        target = y / y.sum(dim=1, keepdim=True).clamp(min=1)
        classify = functional.cross_entropy(self.classes(z.flatten(1)), target)
        even = entropy(z.mean(dim=0)).mean()
        return classify + MEAN_ENTROPY * entropy(z).mean() - BATCH_ENTROPY * even

    def coder(self, standard: Standardise) -> Coder:
        words = torch.eye(K).repeat(self.M, 1, 1)
        return products_of(standard, nn.Sequential(self.blocks, nn.Flatten()), words, "dot")


def entropy(p: Tensor) -> Tensor:
    """Entropy of the last axis, in bits as in the paper."""
    return -(p * torch.log2(p.clamp(min=1e-12))).sum(dim=-1)
