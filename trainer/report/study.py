"""Gathers everything a report shows about a model's searches, as numbers and images."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from gpq.model.codebook import intra_normalise, pack
from trainer.config import NESTED_BITS, QUANTISED_BITS
from trainer.evaluation.collection import Collection, Embedded
from trainer.evaluation.evaluate import Evaluation, measure, require_searchable
from trainer.evaluation.metrics import (
    RankingMetrics,
    expected_hits,
    mean_metrics,
    tie_aware_mean_at,
)
from trainer.evaluation.ranking import Ranking
from trainer.report.examples import SHOWN_HITS, Example, example, searched, spread_in_colour

RANKS = (1, 2, 5, 10, 20, 50, 100)
RECALLS = np.linspace(0, 1, 21)
MAP_IMAGES = 1500  # in the t-SNE map
MAP_KNOWN = 1000  # of them, if as many have known classes
UNKNOWN = -1  # in place of a class
SHOWN_QUERIES = 12
SHOWN_COLOURS = 5  # queries of one class

NESTED: dict[str | None, tuple[int, ...]] = {"modern": NESTED_BITS, "quantise": QUANTISED_BITS}


@dataclass(frozen=True)
class ClassResult:
    """The figures of the queries of one class, of which the database has ``images``.

    ``confused``: the class that most of its wrong first hits have, and their share of all first
    hits; None if no first hit is wrong. The first hits are ten, or as many as are relevant.
    """

    name: str
    queries: int
    images: int
    mAP: float
    precision: float  # at 10, or at R if that is less
    confused: tuple[str, float] | None


@dataclass(frozen=True)
class Study:
    """Everything a report shows about a model's searches.

    ``collection``: what was searched. ``lengths``: the figures of each nested code length, the
    model's own last. ``metrics``: of each query, at the model's own length. ``precisions``: for
    each length, the precision at RANKS. ``attainable``: the highest possible one.
    ``precision_of_recall``: the precision at RECALLS. usage (M,K): share of images with each
    codeword. tie_sizes (N,): how many images have the same code as each image. positions (P,2) and
    of_class (P,), which may be UNKNOWN: the t-SNE map. ``examples``: queries of different classes.
    ``colours``: queries of one class, with the hits of that class only. ``chance``: the mean share
    of relevant images, which is about the mAP of a random order.
    """

    collection: Collection
    lengths: list[Evaluation]
    metrics: list[RankingMetrics]
    precisions: list[list[float]]
    attainable: list[float]
    precision_of_recall: NDArray[np.float64]
    per_class: list[ClassResult]
    usage: NDArray[np.float64]
    tie_sizes: NDArray[np.int64]
    positions: NDArray[np.float64]
    of_class: NDArray[np.int64]
    examples: list[Example]
    colours: list[Example]
    chance: float

    @property
    def classes(self) -> tuple[str, ...]:
        return self.collection.classes

    @property
    def whole(self) -> Evaluation:
        return self.lengths[-1]

    @property
    def right(self) -> NDArray[np.int64]:
        """How many right answers each query has (Q,)."""
        return np.array([m.right for m in self.metrics], dtype=np.int64)

    @property
    def ten_exist(self) -> bool:
        """True if every query has ten right answers, so that precision at 10 can reach 1."""
        return bool(self.right.min() >= 10)


def study(
    embedded: Embedded, about: dict[str, Any], collection: Collection, engine: str = "auto"
) -> Study:
    """Searches for every query. The t-SNE map has a fixed seed, so studies are reproducible.

    ``about``: what the artifact says of its training.
    """
    require_searchable(collection)
    bits_of_model = embedded.codebook.bits
    recipe = (about.get("training") or {}).get("recipe")
    shorter = [bits for bits in NESTED.get(recipe, ()) if bits < bits_of_model]

    def search(bits: int) -> tuple[Evaluation, list[_QueryResult]]:
        found: list[_QueryResult] = []
        measured = measure(
            embedded,
            bits // 4,
            collection,
            engine,
            on_ranking=lambda ranking: found.append(_query_result(ranking)),
        )
        return measured, found

    of_lengths = [search(bits) for bits in [*shorter, bits_of_model]]
    found = of_lengths[-1][1]
    codes = embedded.codebook.encode(embedded.database)
    _, inverse, counts = np.unique(pack(codes), axis=0, return_inverse=True, return_counts=True)
    positions, of_class = _feature_map(embedded, collection)
    return Study(
        collection=collection,
        lengths=[measured for measured, _ in of_lengths],
        metrics=[f.metrics for f in found],
        precisions=[
            np.mean([f.precisions for f in kept], axis=0).tolist() for _, kept in of_lengths
        ],
        attainable=[_attainable(k, found, collection) for k in RANKS],
        precision_of_recall=np.mean([f.precision_of_recall for f in found], axis=0),
        per_class=_per_class(found, collection),
        usage=np.stack([np.bincount(column, minlength=16) for column in codes.T]) / len(codes),
        tie_sizes=counts[inverse.ravel()],
        positions=positions,
        of_class=of_class,
        examples=searched(embedded, collection, _one_of_each_class(collection), engine),
        colours=_colour_examples(found, collection),
        chance=float(np.mean([f.share for f in found])),
    )


@dataclass(frozen=True)
class _QueryResult:
    """What is kept of the ranking of one query."""

    query: int
    share: float  # of relevant images in the database
    metrics: RankingMetrics
    precisions: list[float]
    precision_of_recall: NDArray[np.float64]
    first_rows: NDArray[np.int64]
    first_right: NDArray[np.bool_]
    own_rows: NDArray[np.int64]  # the first relevant hits
    own_scores: NDArray[np.float32]


def _query_result(found: Ranking) -> _QueryResult:
    relevant, scores = found.relevant, found.scores
    return _QueryResult(
        found.query,
        float(relevant.mean()),
        found.metrics,
        [tie_aware_mean_at(relevant, scores, k) for k in RANKS],
        precision_of_recall(relevant, scores),
        found.rows[:SHOWN_HITS].copy(),
        relevant[:SHOWN_HITS].copy(),
        found.rows[relevant][:SHOWN_HITS].copy(),
        scores[relevant][:SHOWN_HITS].copy(),
    )


def _attainable(k: int, found: list[_QueryResult], collection: Collection) -> float:
    hits = min(k, collection.labelled)
    return float(np.mean([min(1.0, f.metrics.right / hits) for f in found]))


def precision_of_recall(
    relevant: NDArray[np.bool_], scores: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Returns the interpolated precision at RECALLS: the best at that recall or a higher one.

    Both are expectations over all orders of equal scores.
    """
    if not relevant.any():
        return np.zeros(len(RECALLS))
    hits = expected_hits(relevant, scores)
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    rounding = 1e-9 * hits[-1]
    return np.asarray(best[np.searchsorted(hits, RECALLS * hits[-1] - rounding)])


def _per_class(found: list[_QueryResult], collection: Collection) -> list[ClassResult]:
    """Returns the figures of each class, worst first; a query counts for each of its classes."""
    query_labels = collection.query_labels.astype(bool)
    database_labels = collection.database_labels.astype(bool)
    images = database_labels[collection.known_rows].sum(axis=0)
    results = []
    for c, name in enumerate(collection.classes):
        own = [f for f in found if query_labels[f.query, c]]
        if not own:
            continue
        wrong: Counter[int] = Counter()
        for f in own:
            first = len(f.own_rows)
            for row in f.first_rows[:first][~f.first_right[:first]]:
                wrong.update(np.flatnonzero(database_labels[row]).tolist())
        shown = sum(len(f.own_rows) for f in own)
        most = wrong.most_common(1)
        means = mean_metrics([f.metrics for f in own])
        results.append(
            ClassResult(
                name=name,
                queries=len(own),
                images=int(images[c]),
                mAP=means.tie_aware_average_precision,
                precision=means.precision_at_10_or_R,
                confused=(collection.classes[most[0][0]], most[0][1] / shown) if most else None,
            )
        )
    return sorted(results, key=lambda result: result.mAP)


def _feature_map(
    embedded: Embedded, collection: Collection
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns the positions and the classes of some images, the unknown ones first."""
    order = np.random.default_rng(0).permutation(len(collection.known))
    known, unknown = (order[collection.known[order] == value] for value in (True, False))
    known = known[: max(MAP_KNOWN, MAP_IMAGES - len(unknown))]
    rows = np.concatenate([unknown[: MAP_IMAGES - len(known)], known])
    labels = collection.database_labels[rows].argmax(axis=1).astype(np.int64)
    labels[~collection.known[rows]] = UNKNOWN
    x = intra_normalise(embedded.database[rows], embedded.codebook.M).reshape(len(rows), -1)
    if len(x) < 3 or not np.ptp(x, axis=0).any():  # t-SNE cannot start from equal features
        return np.zeros((len(x), 2)), labels
    perplexity = min(30.0, (len(x) - 1) / 3)
    positions = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(x)
    return positions, labels


def _one_of_each_class(collection: Collection) -> NDArray[np.int64]:
    """Returns the first query of each class, or of SHOWN_QUERIES evenly spaced classes."""
    first_of: dict[int, int] = {}
    for query, c in enumerate(collection.query_labels.argmax(axis=1).tolist()):
        first_of.setdefault(c, query)
    classes = sorted(first_of)
    step = max(1, len(classes) // SHOWN_QUERIES)
    return np.array([first_of[c] for c in classes[::step][:SHOWN_QUERIES]])


def _colour_examples(found: list[_QueryResult], collection: Collection) -> list[Example]:
    """Returns the queries with the most different mean colours, of the class with most queries.

    Of classes with equally many queries it is the one with most images. Returns none if there are
    fewer than two such queries.
    """
    labels = collection.query_labels
    of_class = [f for f in found if labels[f.query].sum() == 1 and len(f.own_rows)]
    if not of_class:
        return []
    classes = np.array([int(labels[f.query].argmax()) for f in of_class])
    queries = np.bincount(classes, minlength=len(collection.classes))
    images = collection.database_labels.sum(axis=0, dtype=np.int64)
    most = max(range(len(queries)), key=lambda c: (queries[c], images[c]))
    if queries[most] < 2:
        return []
    own = [f for f, c in zip(of_class, classes, strict=True) if c == most]
    colours = collection.query_colours[[f.query for f in own]]
    chosen = [own[place] for place in spread_in_colour(colours, SHOWN_COLOURS)]
    return [example(collection, f.query, f.own_rows, f.own_scores) for f in chosen]
