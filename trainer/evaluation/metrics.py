"""Metrics of rankings of a whole database, with and without regard to equal scores."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


class RankingMetrics(NamedTuple):
    """The metrics of one ranking, or their means over several rankings.

    All but the first are expectations over all orders of equal scores. They are 0 if there is no
    right answer. ``precision_at_10`` is at most R/10 if R, the number of right answers, is below
    10; the two after it reach 1 for any R.
    """

    average_precision: float  # with equal scores in the order of the ranking
    tie_aware_average_precision: float
    precision_at_10: float
    precision_at_10_or_R: float  # at the rank 10, or at R if that is less
    R_precision: float  # at the rank R
    right: float  # R


def ranking_metrics(relevant: NDArray[np.bool_], scores: NDArray[np.float32]) -> RankingMetrics:
    """Computes the metrics of one ranking: relevant (N,) and scores (N,) in ranked order."""
    right = int(relevant.sum())
    return RankingMetrics(
        average_precision(relevant),
        tie_aware_average_precision(relevant, scores),
        tie_aware_mean_at(relevant, scores, 10),
        tie_aware_mean_at(relevant, scores, min(10, right)) if right else 0.0,
        tie_aware_mean_at(relevant, scores, right) if right else 0.0,
        right,
    )


def mean_metrics(found: Sequence[RankingMetrics]) -> RankingMetrics:
    """Returns the means over rankings, such as mAP; zeros if there are no rankings."""
    if not found:
        return RankingMetrics(*[0.0] * len(RankingMetrics._fields))
    return RankingMetrics(*(float(np.mean(column)) for column in zip(*found, strict=True)))


def average_precision(relevant: NDArray[np.bool_]) -> float:
    """Returns AP of one ranking: relevant (N,) in ranked order. It is 0 if nothing is relevant."""
    hits = np.flatnonzero(relevant)
    if not len(hits):
        return 0.0
    return float(np.mean(np.arange(1, len(hits) + 1) / (hits + 1)))


def tie_aware_average_precision(relevant: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """Returns the expectation of AP over all orders of equal scores.

    relevant (N,) and scores (N,) are in ranked order. The formula is equation 5 of McSherry &
    Najork 2008: in a group of g equal scores of which t are relevant, with n ranks and r relevant
    ones before the group, rank n + i contributes
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


def of_groups(sizes: Counts, hits: Counts, k: int = 10) -> tuple[float, float]:
    """Returns the tie-aware AP and the expected precision at k of groups of equal scores.

    sizes (G,): images of each group, in ranked order, and hits (G,): the relevant ones of them. The
    same as ``tie_aware_average_precision`` and ``tie_aware_mean_at``, at a cost of G: the sums over
    the ranks of a group are differences of harmonic numbers.
    """
    right = int(hits.sum())
    if not right:
        return 0.0, 0.0
    after, t = np.cumsum(sizes), hits.astype(np.float64)
    n, r = after - sizes, np.cumsum(t) - t
    harmonic = _harmonic(int(after[-1]))
    inverse_ranks = harmonic[after] - harmonic[n]
    positions = sizes - (n + 1) * inverse_ranks  # the sum of (i - 1) / (n + i)
    others = (t - 1) / np.maximum(sizes - 1, 1) * positions
    average = float(np.sum(t / sizes * ((r + 1) * inverse_ranks + others)) / right)
    k = min(k, int(after[-1]))
    inside = np.clip(k - n, 0, sizes)
    return average, float(np.sum(t * inside / sizes) / k)


def of_scores(
    scores: NDArray[np.float32], hits: NDArray[Any], sizes: NDArray[Any] | None = None
) -> tuple[float, float]:
    """Returns the tie-aware AP and the expected precision at 10 of items in any order.

    scores (U,). hits (U,): how many images of each item are relevant, of ``sizes`` (U,), or of 1.
    """
    order = np.argsort(-scores)
    ordered = scores[order]
    groups = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    of_item = np.ones(len(scores), np.int64) if sizes is None else sizes
    return of_groups(
        np.add.reduceat(of_item[order], groups),
        np.add.reduceat(hits[order].astype(np.int64), groups),
    )


@lru_cache(maxsize=1)
def _harmonic(most: int) -> NDArray[np.float64]:
    """Returns 1 + 1/2 + … + 1/n for each n from 0 to ``most``."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, most + 1))])


def expected_hits(relevant: NDArray[np.bool_], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the expected number of relevant hits up to each rank.

    relevant (N,) and scores (N,) in ranked order -> (N,). The expectation is over all orders of
    equal scores, so the number rises evenly within a group of them. Divided by the rank it is
    the precision, divided by its last value the recall.
    """
    first = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    size = np.diff(np.r_[first, len(scores)])
    hits = np.add.reduceat(relevant.astype(np.int64), first)
    return np.cumsum(np.repeat(hits / size, size))


def tie_aware_mean_at(values: NDArray[Any], scores: NDArray[np.float32], k: int) -> float:
    """Returns the expected mean of the first k values, over all orders of equal scores.

    values (N,) and scores (N,) are in ranked order. Each member of the group that rank k divides
    is among the first k with the same probability. With values that are true for relevant hits,
    the result is the precision at k.
    """
    k = min(k, len(scores))
    above = scores > scores[k - 1]
    tied = scores == scores[k - 1]
    inside = (k - above.sum()) / tied.sum()
    return float((values[above].sum() + inside * values[tied].sum()) / k)
