"""Reduces features to few dimensions by their principal components."""

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from trainer.methods.base import Floats

LEAST_LENGTH = np.float32(1e-12)
MOST_DIMENSIONS = 240  # a multiple of the number of codebooks of 12, 24, 32 and 48 bits


@dataclass(frozen=True)
class Reduction:
    """Principal components: features (N,E) -> (N,D), after division by their length.

    axes (E,D), mean (E,).
    """

    axes: Floats
    mean: Floats

    def __call__(self, features: Floats) -> Floats:
        reduced = (unit(features) - self.mean) @ self.axes
        return reduced.astype(np.float32, copy=False)


def reduction(features: Floats, D: int, seed: int) -> Reduction:
    """Learns the first D principal components of features (N,E), or all if there are fewer."""
    found = PCA(min(D, *features.shape), svd_solver="randomized", random_state=seed)
    found.fit(unit(features))
    return Reduction(
        np.ascontiguousarray(found.components_.T, dtype=np.float32), found.mean_.astype(np.float32)
    )


def dimensions(M: int, features: Floats) -> int:
    """Returns the largest multiple of M that the features have, MOST_DIMENSIONS at most."""
    most: int = min(MOST_DIMENSIONS, *features.shape)
    return most // M * M


def unit(features: Floats) -> Floats:
    """Divides each row by its length."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    divided: Floats = features / np.maximum(lengths, LEAST_LENGTH)
    return divided


def random_rotation(D: int, seed: int) -> Floats:
    """Returns a random orthogonal matrix (D,D)."""
    drawn = np.random.default_rng(seed).standard_normal((D, D))
    rotation: Floats = np.linalg.qr(drawn)[0].astype(np.float32)
    return rotation
