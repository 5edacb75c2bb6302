"""Queries and their first hits, as the report shows them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.collection import Collection, Embedded
from trainer.evaluation.searches import first_hits

SHOWN_HITS = 10


@dataclass(frozen=True)
class ExampleHit:
    """A hit of an example; ``right`` if it shares a class with the query, None if unknown."""

    pixels: NDArray[np.uint8]  # (3,S,S)
    score: float
    right: bool | None


@dataclass(frozen=True)
class Example:
    """A query and its first hits, in the order the service returns them."""

    pixels: NDArray[np.uint8]
    name: str
    hits: list[ExampleHit]

    @property
    def in_words(self) -> str:
        right = sum(hit.right is True for hit in self.hits)
        unknown = sum(hit.right is None for hit in self.hits)
        more = f", {unknown} of unknown class" if unknown else ""
        return f"query {self.name}; of {len(self.hits)} hits {right} are right{more}"


def searched(
    embedded: Embedded, collection: Collection, queries: NDArray[np.int64], engine: str
) -> list[Example]:
    """Searches for some queries; returns each with its first hits."""
    found = first_hits(embedded, collection, queries, SHOWN_HITS, engine)
    return [
        example(collection, query, rows, scores)
        for query, (rows, scores) in zip(queries.tolist(), found, strict=True)
    ]


def example(
    collection: Collection, query: int, rows: NDArray[np.int64], scores: NDArray[np.float32]
) -> Example:
    """Returns a query with the hits at ``rows`` of the database."""
    wanted = collection.query_labels[query].astype(bool)
    pixels = collection.database.pixels(rows).numpy()
    hits = []
    for row, picture, score in zip(rows.tolist(), pixels, scores.tolist(), strict=True):
        right = bool((collection.database_labels[row].astype(bool) & wanted).any())
        hits.append(ExampleHit(picture, score, right if collection.known[row] else None))
    own = collection.queries.pixels(np.array([query]))[0].numpy()
    return Example(own, collection.names(query), hits)


def spread_in_colour(colours: NDArray[Any], count: int) -> list[int]:
    """Returns the rows of ``count`` colours (N,3) that are far from each other."""
    far = np.linalg.norm(colours - colours.mean(axis=0), axis=1)
    chosen: list[int] = []
    while len(chosen) < min(count, len(colours)):
        chosen.append(int(far.argmax()))
        nearest = np.linalg.norm(colours - colours[chosen[-1]], axis=1)
        far = nearest if len(chosen) == 1 else np.minimum(far, nearest)
    return chosen
