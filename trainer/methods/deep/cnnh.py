"""CNNH: convolutional neural network hashing (Xia, Pan, Lai, Liu & Yan, AAAI 2014)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.methods.base import Floats, Lesson
from trainer.methods.deep.learning import SignLearner

ROUNDS = 20


class CNNH(SignLearner):
    """Stage 1 factorises the similarities S of the labelled images, ±1, as H Hᵀ / q with signs H.
    Stage 2 learns to predict H.

    Deviations: H is found sign by sign, not by Newton steps on a relaxed H; images with the same
    labels, whose rows of S are equal, share a code. The loss of stage 2 is the cross-entropy of
    each bit.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        kinds, of_image = np.unique(lesson.labels, axis=0, return_inverse=True)
        self.kinds = torch.from_numpy(kinds).float()
        counts = np.bincount(of_image.ravel(), minlength=len(kinds))
        similar = np.where(kinds.astype(np.int64) @ kinds.T > 0, 1.0, -1.0)
        codes = factorised(similar, counts, self.bits, lesson.seed)
        self.wanted = torch.from_numpy((codes + 1) / 2)

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        kind = (y[:, None] == self.kinds).all(dim=2).float().argmax(dim=1)
        return functional.binary_cross_entropy_with_logits(self.head(x), self.wanted[kind])


def factorised(
    similar: NDArray[np.float64], counts: NDArray[np.int64], q: int, seed: int
) -> Floats:
    """Returns signs H (G,q) that make H Hᵀ / q near similarities (G,G) of groups of images.

    ``counts`` (G,): images of each group. Bit after bit and group after group, the sign is chosen
    that fits what the other bits leave of q · S best, until none changes.
    """
    rng = np.random.default_rng(seed)
    H = np.where(rng.random((len(similar), q)) < 0.5, -1.0, 1.0)
    for _ in range(ROUNDS):
        before = H.copy()
        for bit in range(q):
            others = np.arange(q) != bit
            left = (q * similar - H[:, others] @ H[:, others].T) * counts
            np.fill_diagonal(left, 0)  # the sign of a group does not depend on its own
            for group in range(len(H)):
                H[group, bit] = 1.0 if left[group] @ H[:, bit] >= 0 else -1.0
        if (before == H).all():
            break
    return H.astype(np.float32)
