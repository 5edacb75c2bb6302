"""Rankings of a whole database by the scores of a query."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gpq import scan
from gpq.model.codebook import Codebook
from trainer.data.image_sets import RetrievalSet
from trainer.evaluation.metrics import RankingMetrics, ranking_metrics

SCAN_BATCH = 32


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


def rankings(
    codebook: Codebook,
    queries: NDArray[np.float32],
    packed: NDArray[np.uint8],
    images: RetrievalSet,
    engine: str,
) -> Iterator[Ranking]:
    """Yields the ranking of each query, as a search of the service would rank the database.

    queries (Q,D) features, packed (N,ceil(M/2)) codes. A query's own row is left out.
    """
    luts = codebook.lut(queries)
    scanner = scan.build(packed, codebook.M, engine)
    labels, wanted = images.database_labels.float(), images.query_labels.float()
    for first in tqdm(range(0, len(luts), SCAN_BATCH), desc=f"{codebook.bits} bits", leave=False):
        rows, scores = scanner.search(luts[first : first + SCAN_BATCH], k=len(packed))
        shared = (wanted[first : first + len(rows)] @ labels.T).numpy() > 0
        for place, (ranked, score) in enumerate(zip(rows, scores, strict=True)):
            query = first + place
            if images.own_rows is not None:
                others = ranked != int(images.own_rows[query])
                ranked, score = ranked[others], score[others]
            yield Ranking(query, ranked, score, shared[place][ranked])
