"""Reduces features to few dimensions by their principal components."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from trainer.methods.base import Floats

LEAST_LENGTH = 1e-12
MOST_DIMENSIONS = 240  # a multiple of the number of codebooks of 12, 24, 32 and 48 bits


class Unit(nn.Module):
    """Divides each row (N,E) by its length."""

    def forward(self, features: Tensor) -> Tensor:
        lengths: Tensor = features.norm(dim=1, keepdim=True)
        return features / lengths.clamp(min=LEAST_LENGTH)


@dataclass(frozen=True)
class Reduction:
    """Principal components of features that were divided by their length.

    axes (E,D), mean (E,).
    """

    axes: Floats
    mean: Floats

    def __call__(self, features: Floats) -> Floats:
        """Features (N,E) -> (N,D)."""
        reduced = (unit(features) - self.mean) @ self.axes
        return reduced.astype(np.float32, copy=False)

    def then(self, matrix: Floats, shift: Floats | None = None) -> nn.Module:
        """Returns a network that computes reduced @ matrix + shift of features (N,E).

        matrix (D,D'), shift (D',) or None for 0.
        """
        weight = self.axes @ matrix
        bias = -self.mean @ weight
        return nn.Sequential(Unit(), linear(weight, bias if shift is None else bias + shift))


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
    divided: Floats = features / np.maximum(lengths, np.float32(LEAST_LENGTH))
    return divided


def linear(weight: Floats, bias: Floats) -> nn.Linear:
    """Returns the layer that computes x @ weight + bias. weight (E,D), bias (D,)."""
    layer = nn.Linear(*weight.shape)
    layer.load_state_dict(
        {"weight": torch.from_numpy(weight.T.copy()), "bias": torch.from_numpy(bias)}
    )
    return layer


def random_rotation(D: int, seed: int) -> Floats:
    """Returns a random orthogonal matrix (D,D)."""
    drawn = np.random.default_rng(seed).standard_normal((D, D))
    rotation: Floats = np.linalg.qr(drawn)[0].astype(np.float32)
    return rotation
