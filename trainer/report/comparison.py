"""Compares the searches of a model with those of the model that its training started from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.collection import Collection, Embedded
from trainer.evaluation.evaluate import measure
from trainer.evaluation.metrics import RankingMetrics
from trainer.report.examples import Example, searched

RESAMPLES = 2000  # of the queries
SHOWN = 3  # queries of each kind
FIGURES = {
    "mAP": "tie_aware_average_precision",
    "precision at 10 or R": "precision_at_10_or_R",
    "R-precision": "R_precision",
}


@dataclass(frozen=True)
class Change:
    """The means of a figure before and after, and the 95 % interval of their difference."""

    name: str
    before: float
    after: float
    low: float
    high: float

    @property
    def change(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class Pair:
    """A query with its hits before and after, and its average precision."""

    before: Example
    after: Example
    of_before: float
    of_after: float


@dataclass(frozen=True)
class Comparison:
    """What changed between two models that search for the same queries in the same database.

    ``changes``: of each of FIGURES, mAP first. before and after (Q,): the average precision of
    each query. ``improved``: the queries that improved most; ``typical``: those whose change is
    nearest the median; ``worse``: those that got worse most.
    """

    bits: int  # before
    changes: list[Change]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    improved: list[Pair]
    typical: list[Pair]
    worse: list[Pair]

    @property
    def mAP(self) -> Change:
        return self.changes[0]

    @property
    def better_queries(self) -> int:
        return int((self.after > self.before).sum())

    @property
    def worse_queries(self) -> int:
        return int((self.after < self.before).sum())


def compare(
    before: Embedded,
    after: Embedded,
    found_after: Sequence[RankingMetrics],
    collection: Collection,
    engine: str = "auto",
) -> Comparison:
    """Searches with the model ``before``. ``found_after``: the metrics of each query after."""
    found_before: list[RankingMetrics] = []
    measure(
        before,
        before.codebook.M,
        collection,
        engine,
        on_ranking=lambda ranking: found_before.append(ranking.metrics),
    )
    of_before, of_after = (
        {name: np.array([getattr(m, field) for m in found]) for name, field in FIGURES.items()}
        for found in (found_before, found_after)
    )
    was, now = of_before["mAP"], of_after["mAP"]
    kinds = _chosen(now - was)
    rows = np.concatenate(kinds)
    examples = [searched(each, collection, rows, engine) for each in (before, after)]
    pairs = [
        Pair(first, second, float(was[row]), float(now[row]))
        for row, first, second in zip(rows, *examples, strict=True)
    ]
    improved, typical, worse = np.split(np.arange(len(rows)), np.cumsum([*map(len, kinds)])[:-1])
    return Comparison(
        before.codebook.bits,
        [_change(name, of_before[name], of_after[name]) for name in FIGURES],
        was,
        now,
        *([pairs[place] for place in places] for places in (improved, typical, worse)),
    )


def _change(name: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> Change:
    """Returns the change with its interval, by a bootstrap over the queries (Efron 1979)."""
    changes = after - before
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(changes), (RESAMPLES, len(changes)))
    low, high = np.quantile(changes[drawn].mean(axis=1), (0.025, 0.975))
    return Change(name, float(before.mean()), float(after.mean()), float(low), float(high))


def _chosen(changes: NDArray[np.float64]) -> tuple[NDArray[np.int64], ...]:
    """Returns queries that improved most, typical ones, and ones that got worse most.

    No query is in two of them.
    """
    order = np.argsort(-changes, kind="stable")
    improved = order[:SHOWN][changes[order[:SHOWN]] > 0]
    worse = order[::-1][:SHOWN]
    worse = worse[changes[worse] < 0]
    others = order[~np.isin(order, np.concatenate([improved, worse]))]
    nearest = np.argsort(np.abs(changes[others] - np.median(changes)), kind="stable")
    return improved, others[nearest[:SHOWN]], worse
