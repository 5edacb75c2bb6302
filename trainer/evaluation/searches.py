"""Searches of a collection with the same codes and the same scan as the service."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gpq import scan
from gpq.model.codebook import Codebook, pack
from trainer.evaluation.collection import Collection, Embedded
from trainer.evaluation.ranking import Ranking

SCAN_BATCH = 32


def rankings(
    codebook: Codebook,
    queries: NDArray[np.float32],
    packed: NDArray[np.uint8],
    collection: Collection,
    engine: str,
) -> Iterator[Ranking]:
    """Yields the ranking of each query, as a search of the service would rank the database.

    queries (Q,D) features, packed (N,ceil(M/2)) codes. Images of unknown classes and a query's own
    row are left out.
    """
    luts, known = codebook.lut(queries), collection.known_rows
    scanner = scan.build(packed[known], codebook.M, engine)
    labels = collection.database_labels[known].astype(np.float32)
    wanted, own = collection.query_labels.astype(np.float32), collection.own_rows
    for first in tqdm(range(0, len(luts), SCAN_BATCH), desc=f"{codebook.bits} bits", leave=False):
        places, scores = scanner.search(luts[first : first + SCAN_BATCH], k=len(known))
        shared = wanted[first : first + len(places)] @ labels.T > 0
        for i, (ranked, score) in enumerate(zip(places, scores, strict=True)):
            query, rows, right = first + i, known[ranked], shared[i][ranked]
            if own is not None:
                others = rows != own[query]
                rows, score, right = rows[others], score[others], right[others]
            yield Ranking(query, rows, score, right)


def first_hits(
    embedded: Embedded, collection: Collection, queries: NDArray[np.int64], count: int, engine: str
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Returns the rows and the scores of the first hits of some queries.

    Images of unknown classes are among them, as in a search of the service.
    """
    packed = pack(embedded.codebook.encode(embedded.database))
    scanner = scan.build(packed, embedded.codebook.M, engine)
    luts = embedded.codebook.lut(embedded.queries[queries])
    found = []
    rows, scores = scanner.search(luts, k=min(count + 1, len(packed)))
    for query, ranked, score in zip(queries.tolist(), rows, scores, strict=True):
        own = -1 if collection.own_rows is None else int(collection.own_rows[query])
        others = np.flatnonzero(ranked != own)[:count]
        found.append((ranked[others], score[others]))
    return found
