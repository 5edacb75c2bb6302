"""GPQ: generalized product quantization (Jang & Cho, CVPR 2020), and its variants."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpq.model.codebook import K
from trainer.components import losses
from trainer.components.assignment import intra_normalise, separate, soft_assign
from trainer.config import SUBVECTOR_DIMENSION
from trainer.methods.base import Coder, Lesson
from trainer.methods.deep.learning import Learner, Standardise, products_of

MOST_OF_TRIPLETS = 64  # images of a step; all of their triplets count


class GPQ(Learner):
    """The quantised N-pair loss, the classification by prototypes that also move the codewords, and
    the entropy of unlabelled images, whose gradient is reversed (equations 2 to 5).

    Logits are means over the sub-spaces, as in the authors' code.
    """

    triplet, classify = False, True
    lambda1, lambda2 = 0.1, 0.1  # section 4.1

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        d = SUBVECTOR_DIMENSION
        self.head = nn.Linear(self.E, self.M * d)
        self.Z = nn.Parameter(functional.normalize(torch.randn(self.M, K, d), dim=2))
        self.prototypes = nn.Parameter(functional.normalize(torch.randn(self.M, self.C, d), dim=2))

    def sub_vectors(self, x: Tensor) -> Tensor:
        return intra_normalise(self.head(x), self.M)

    def codewords(self) -> Tensor:
        if not self.classify:
            return functional.normalize(self.Z, dim=2)
        C = functional.normalize(self.prototypes, dim=2)
        return soft_assign(self.Z.transpose(0, 1), C).transpose(0, 1)

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        parts = self.sub_vectors(x)
        q = soft_assign(parts, self.codewords())
        similar = losses.class_similarity(y)
        if self.triplet:
            some = slice(MOST_OF_TRIPLETS)
            found = losses.triplet(parts[some], q[some], similar[some, some])
        else:
            found = losses.npair(parts, q, similar)
        if not self.classify:
            return found
        logits = losses.prototype_logits(parts, self.prototypes)
        others = intra_normalise(losses.reverse_gradient(self.head(u)), self.M)
        of_others = losses.prototype_logits(others, self.prototypes)
        target = losses.class_target(y)
        classified = losses.classification(logits, target, averaged=True).mean()
        entropy = losses.entropy(of_others, averaged=True)
        return found + self.lambda1 * classified - self.lambda2 * entropy

    def coder(self, standard: Standardise) -> Coder:
        return products_of(standard, self.head, separate(self.codewords()), "cosine")


def weighted(weight1: float, weight2: float) -> type[GPQ]:
    """Returns GPQ with these lambda1 and lambda2."""

    class Weighted(GPQ):
        lambda1, lambda2 = weight1, weight2

    return Weighted


class GPQH(GPQ):
    """GPQ-H (section 4.4): the N-pair loss alone. Prototypes do not move its codewords."""

    classify = False


class GPQT(GPQ):
    """GPQ-T (section 4.4): triplets in place of the N-pairs."""

    triplet = True
