"""Losses and distances that several methods share."""

import torch
from torch import Tensor
from torch.nn import functional


def alike(y: Tensor, other: Tensor) -> Tensor:
    """Labels (A,C) and (B,C) -> (A,B) bool, whether two images share a class."""
    return y @ other.T > 0


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(A,D), (B,D) -> (A,B)."""
    lengths = (a * a).sum(dim=1)[:, None] + (b * b).sum(dim=1)
    return (lengths - 2 * a @ b.T).clamp(min=0)


def triplets(distances: Tensor, similar: Tensor, margin: float) -> Tensor:
    """Mean of max(0, margin + d(a,p) - d(a,n)) over all anchors a, similar p and dissimilar n.

    distances and similar (A,B). An anchor that is among the B counts as similar to itself, at
    distance 0.
    """
    violated = (margin + distances[:, :, None] - distances[:, None, :]).clamp(min=0)
    counted = similar[:, :, None] & ~similar[:, None, :]
    return (violated * counted).sum() / counted.sum().clamp(min=1)


def pair_likelihood(h: Tensor, similar: Tensor) -> Tensor:
    """Minus the mean log-likelihood of similarities (B,B), with Θ = h·h'/2: log(1 + e^Θ) - s·Θ
    (Zhang, Zhang, Li & Guo 2014), for pairs of different images.

    h (B,bits).
    """
    theta = h @ h.T / 2
    each = functional.softplus(theta) - similar.float() * theta
    different = ~torch.eye(len(h), dtype=torch.bool)
    return each[different].mean()
