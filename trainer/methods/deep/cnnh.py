"""CNNH: convolutional neural network hashing (Xia, Pan, Lai, Liu & Yan, AAAI 2014)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.methods.base import Floats, Lesson
from trainer.methods.deep.learning import SignLearner

ROUNDS = 20
MOST_KINDS = 4000  # of the sets of labels that are factorised


class CNNH(SignLearner):
    """Stage 1 factorises the similarities S of the labelled images, ±1, as H Hᵀ / q with signs H.
    Stage 2 learns to predict H.

    Deviations: H is found sign by sign, not by Newton steps on a relaxed H; images with the same
    labels, whose rows of S are equal, share a code. Of more than MOST_KINDS sets of labels the
    commonest are factorised; an image of another set gets the code of the one that shares most
    labels. The loss of stage 2 is the cross-entropy of each bit.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.seed = lesson.seed

    def targets(self, y: Tensor) -> Tensor:
        """Labels (L,C) -> the wanted bits (L,q), 0 or 1."""
        kinds, of_image, counts = np.unique(
            y.numpy(), axis=0, return_inverse=True, return_counts=True
        )
        common = np.sort(np.argsort(-counts, kind="stable")[:MOST_KINDS])
        shared = kinds @ kinds[common].T
        similar = np.where(shared[common] > 0, 1, -1).astype(np.float32)
        codes = factorised(similar, counts[common], self.bits, self.seed)
        nearest = shared.argmax(axis=1)
        nearest[common] = np.arange(len(common))
        return torch.from_numpy((codes[nearest[of_image.ravel()]] + 1) / 2)

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(self.head(x), y)


def factorised(similar: Floats, counts: NDArray[np.int64], q: int, seed: int) -> Floats:
    """Returns signs H (G,q) that make H Hᵀ / q near similarities (G,G) of groups of images.

    ``counts`` (G,): images of each group. Bit after bit and group after group, the sign is chosen
    that fits what the other bits leave of q · S best, until none changes.
    """
    rng = np.random.default_rng(seed)
    H = np.where(rng.random((len(similar), q)) < 0.5, -1, 1).astype(np.float32)
    left = q * similar - H @ H.T
    weights = counts.astype(np.float32)
    for _ in range(ROUNDS):
        before = H.copy()
        for bit in range(q):
            left += np.outer(H[:, bit], H[:, bit])
            for group in range(len(H)):
                own = left[group, group] * weights[group] * H[group, bit]
                wanted = left[group] @ (weights * H[:, bit]) - own  # its own sign does not count
                H[group, bit] = 1 if wanted >= 0 else -1
            left -= np.outer(H[:, bit], H[:, bit])
        if (before == H).all():
            break
    return H
