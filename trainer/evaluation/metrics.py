"""Metrics of rankings of a whole database, with and without regard to equal scores."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class RankingMetrics(NamedTuple):
    """The metrics of one ranking, or their means over several rankings."""

    average_precision: float  # with equal scores in the order of the ranking
    tie_aware_average_precision: float
    precision_at_10: float  # tie-aware


def ranking_metrics(relevant: NDArray[np.bool_], scores: NDArray[np.float32]) -> RankingMetrics:
    """Computes the metrics of one ranking: relevant (N,) and scores (N,) in ranked order."""
    return RankingMetrics(
        average_precision(relevant),
        tie_aware_average_precision(relevant, scores),
        tie_aware_mean_at(relevant, scores, 10),
    )


def mean_metrics(found: Sequence[RankingMetrics]) -> RankingMetrics:
    """Returns the means over rankings, such as mAP; zeros if there are no rankings."""
    if not found:
        return RankingMetrics(0.0, 0.0, 0.0)
    return RankingMetrics(*(float(np.mean(column)) for column in zip(*found, strict=True)))


def average_precision(relevant: NDArray[np.bool_]) -> float:
    """AP of one ranking: relevant (N,) in ranked order; 0 where nothing is relevant."""
    hits = np.flatnonzero(relevant)
    if not len(hits):
        return 0.0
    return float(np.mean(np.arange(1, len(hits) + 1) / (hits + 1)))


def tie_aware_average_precision(relevant: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """The expectation of AP over all orders of equal scores (McSherry & Najork 2008, eq. 5).

    relevant (N,) and scores (N,) in ranked order. In a group of g equals with t relevant,
    n ranks and r relevant before it, rank n + i contributes
    (t / g) · (r + 1 + (i - 1)(t - 1)/(g - 1)) / (n + i).
    """
    if not relevant.any():
        return 0.0
    first = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    size = np.diff(np.r_[first, len(scores)])
    hits = np.add.reduceat(relevant.astype(np.int64), first)
    hits_before = np.cumsum(hits) - hits
    g, t, r, n = (np.repeat(a, size) for a in (size, hits, hits_before, first))
    i = np.arange(len(scores)) - n + 1
    others = (i - 1) * (t - 1) / np.maximum(g - 1, 1)
    return float(np.sum(t / g * (r + 1 + others) / (n + i)) / hits.sum())


def expected_hits(relevant: NDArray[np.bool_], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """How many relevant ones stand at each rank or before it, over all orders of equal scores.

    relevant (N,) and scores (N,) in ranked order -> (N,). Within a group of equals it rises
    evenly; divided by the rank it is precision at that rank, by the last it is recall.
    """
    first = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    size = np.diff(np.r_[first, len(scores)])
    hits = np.add.reduceat(relevant.astype(np.int64), first)
    return np.cumsum(np.repeat(hits / size, size))


def tie_aware_mean_at(values: NDArray[Any], scores: NDArray[np.float32], k: int) -> float:
    """The expected mean of ``values`` over the first k, over all orders of equal scores.

    values (N,) and scores (N,) in ranked order; of the group that rank k cuts through,
    each member stands before the cut with the same probability. With bool values, true
    where relevant, it is precision at k.
    """
    k = min(k, len(scores))
    above = scores > scores[k - 1]
    tied = scores == scores[k - 1]
    inside = (k - above.sum()) / tied.sum()
    return float((values[above].sum() + inside * values[tied].sum()) / k)
