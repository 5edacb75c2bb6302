"""Clusters directions."""

import torch
from torch import Tensor
from torch.nn import functional

ITERATIONS = 20


def spherical_k_means(points: Tensor, k: int) -> Tensor:
    """Spherical k-means (Dhillon & Modha 2001) of each of M sets separately.

    points (M,L,d) unit vectors, L at least k -> (M,k,d) unit means. The result is deterministic:
    the first means are points that are far from each other, beginning with the first point.
    """
    chosen = torch.zeros(len(points), k, dtype=torch.int64, device=points.device)
    nearest = torch.full(points.shape[:2], -torch.inf, device=points.device)
    rows = torch.arange(len(points), device=points.device)
    for i in range(1, k):
        last = points[rows, chosen[:, i - 1]]
        nearest = torch.maximum(nearest, torch.einsum("mld,md->ml", points, last))
        chosen[:, i] = nearest.argmin(dim=1)
    means = points.gather(1, chosen[:, :, None].expand(-1, -1, points.shape[2]))
    for _ in range(ITERATIONS):
        of_mean = torch.einsum("mld,mkd->mlk", points, means).argmax(dim=2)
        member = functional.one_hot(of_mean, k).to(points.dtype)
        sums = torch.einsum("mlk,mld->mkd", member, points)
        empty = member.sum(dim=1)[:, :, None] == 0
        means = functional.normalize(torch.where(empty, means, sums), dim=-1)
    return means
