"""Rankings of a whole database by the scores of a query."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.metrics import RankingMetrics, ranking_metrics


@dataclass(frozen=True)
class Ranking:
    """The database rows (N,) in ranked order, their scores, and which of them are relevant."""

    query: int
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    relevant: NDArray[np.bool_]

    @cached_property
    def metrics(self) -> RankingMetrics:
        return ranking_metrics(self.relevant, self.scores)


def ranked(
    query: int,
    scores: NDArray[np.float32],
    relevant: NDArray[np.bool_],
    own_row: int | None = None,
) -> Ranking:
    """Ranks all rows by their scores (N,); equal scores stay in the order of the rows.

    ``own_row``: the row of the query itself, which is left out.
    """
    rows = np.argsort(-scores, kind="stable")
    if own_row is not None:
        rows = rows[rows != own_row]
    return Ranking(query, rows, scores[rows], relevant[rows])
