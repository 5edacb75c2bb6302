"""Gathers everything a report shows about a model's searches, as numbers and images."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from torch import Tensor

from gpq.model.codebook import Codebook, intra_normalise, pack
from gpq.model.model import Model
from trainer.config import NESTED_BITS
from trainer.data.image_sets import RetrievalSet
from trainer.evaluation.evaluate import (
    Evaluation,
    features,
    mean_colours,
    measure,
    require_searchable,
)
from trainer.evaluation.metrics import (
    RankingMetrics,
    expected_hits,
    mean_metrics,
    tie_aware_mean_at,
)
from trainer.evaluation.ranking import Ranking

RANKS = (1, 2, 5, 10, 20, 50, 100)
RECALLS = np.linspace(0, 1, 21)
MAP_IMAGES = 1500  # in the t-SNE map
SHOWN_QUERIES = 12
SHOWN_HITS = 10
SHOWN_COLOURS = 5  # queries of one class


@dataclass(frozen=True)
class ClassResult:
    """The figures of the queries of one class.

    ``confused``: the class that most of its wrong first hits have, and their share of all first
    hits; None if no first hit is wrong. The first hits are ten, or as many as are relevant.
    """

    name: str
    queries: int
    mAP: float
    precision_at_10: float
    confused: tuple[str, float] | None


@dataclass(frozen=True)
class ExampleHit:
    """A hit of an example; ``right`` if it shares a class with the query."""

    pixels: NDArray[np.uint8]  # (3,S,S)
    score: float
    right: bool


@dataclass(frozen=True)
class Example:
    """A query and its first hits, in the order the service returns them."""

    pixels: NDArray[np.uint8]
    name: str
    hits: list[ExampleHit]


@dataclass(frozen=True)
class Study:
    """Everything a report shows about a model's searches.

    ``lengths``: the figures of each nested code length, the model's own last. ``precisions``: for
    each length, the precision at RANKS. ``precision_of_recall``: the precision at RECALLS.
    usage (M,K): share of images with each codeword. tie_sizes (N,): how many images have the same
    code as each image. positions (P,2) and of_class (P,): the t-SNE map. ``examples``: queries of
    different classes. ``colours``: queries of one class, with the hits of that class only.
    ``chance``: the mean share of relevant images, which is about the mAP of a random order.
    """

    classes: tuple[str, ...]
    lengths: list[Evaluation]
    precisions: list[list[float]]
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
    def whole(self) -> Evaluation:
        return self.lengths[-1]


def study(model: Model, images: RetrievalSet, engine: str = "auto") -> Study:
    """Searches for every query. The t-SNE map has a fixed seed, so studies are reproducible."""
    require_searchable(images)
    query_features = features(model, images.queries, "encoding queries")
    database_features = features(model, images.database, "encoding")
    nested = model.about.get("training", {}).get("recipe") == "modern"
    shorter = [b for b in NESTED_BITS if b < model.bits] if nested else []

    def search(bits: int) -> tuple[Evaluation, list[_QueryResult]]:
        found: list[_QueryResult] = []
        measured = measure(
            model,
            bits // 4,
            query_features,
            database_features,
            images,
            engine,
            on_ranking=lambda ranking: found.append(_query_result(ranking)),
        )
        return measured, found

    of_lengths = [search(bits) for bits in [*shorter, model.bits]]
    found = of_lengths[-1][1]
    codes = model.codebook.encode(database_features)
    packed = pack(codes)
    _, inverse, counts = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    positions, of_class = _feature_map(model.codebook, database_features, images.database_labels)
    return Study(
        classes=images.classes,
        lengths=[measured for measured, _ in of_lengths],
        precisions=[
            np.mean([f.precisions for f in kept], axis=0).tolist() for _, kept in of_lengths
        ],
        precision_of_recall=np.mean([f.precision_of_recall for f in found], axis=0),
        per_class=_per_class(found, images),
        usage=np.stack([np.bincount(column, minlength=16) for column in codes.T]) / len(codes),
        tie_sizes=counts[inverse.ravel()],
        positions=positions,
        of_class=of_class,
        examples=_examples(found, images),
        colours=_colour_examples(found, images),
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
    first_scores: NDArray[np.float32]
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
        _precision_of_recall(relevant, scores),
        found.rows[:SHOWN_HITS].copy(),
        scores[:SHOWN_HITS].copy(),
        relevant[:SHOWN_HITS].copy(),
        found.rows[relevant][:SHOWN_HITS].copy(),
        scores[relevant][:SHOWN_HITS].copy(),
    )


def _precision_of_recall(
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


def _per_class(found: list[_QueryResult], images: RetrievalSet) -> list[ClassResult]:
    """Returns the figures of each class, worst first; a query counts for each of its classes."""
    query_labels = images.query_labels.numpy().astype(bool)
    database_labels = images.database_labels.numpy().astype(bool)
    results = []
    for c, name in enumerate(images.classes):
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
                mAP=means.tie_aware_average_precision,
                precision_at_10=means.precision_at_10,
                confused=(images.classes[most[0][0]], most[0][1] / shown) if most else None,
            )
        )
    return sorted(results, key=lambda result: result.mAP)


def _feature_map(
    codebook: Codebook, raw: NDArray[np.float32], labels: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows = torch.randperm(len(raw), generator=torch.Generator().manual_seed(0))[:MAP_IMAGES]
    x = intra_normalise(raw[rows.numpy()], codebook.M).reshape(len(rows), -1)
    if len(x) < 3:
        return np.zeros((len(x), 2)), labels[rows].argmax(dim=1).numpy()
    perplexity = min(30.0, (len(x) - 1) / 3)
    positions = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(x)
    return positions, labels[rows].argmax(dim=1).numpy()


def _examples(found: list[_QueryResult], images: RetrievalSet) -> list[Example]:
    """Returns the first query of each class, or of SHOWN_QUERIES evenly spaced classes."""
    first_of: dict[int, _QueryResult] = {}
    for f in found:
        first_of.setdefault(int(images.query_labels[f.query].argmax()), f)
    classes = sorted(first_of)
    step = max(1, len(classes) // SHOWN_QUERIES)
    chosen = [first_of[c] for c in classes[::step][:SHOWN_QUERIES]]
    return [_example(images, f, f.first_rows, f.first_scores, f.first_right) for f in chosen]


def _colour_examples(found: list[_QueryResult], images: RetrievalSet) -> list[Example]:
    """Returns the queries with the most different mean colours, of the class with most queries."""
    of_class = [f for f in found if images.query_labels[f.query].sum() == 1 and len(f.own_rows)]
    if not of_class:
        return []
    classes = [int(images.query_labels[f.query].argmax()) for f in of_class]
    most = np.bincount(classes).argmax()
    own = [f for f, c in zip(of_class, classes, strict=True) if c == most]
    colours = mean_colours(images.queries[[f.query for f in own]])
    far = np.linalg.norm(colours - colours.mean(axis=0), axis=1)
    chosen: list[int] = []
    while len(chosen) < min(SHOWN_COLOURS, len(own)):
        chosen.append(int(far.argmax()))
        nearest = np.linalg.norm(colours - colours[chosen[-1]], axis=1)
        far = nearest if len(chosen) == 1 else np.minimum(far, nearest)
    return [
        _example(images, f, f.own_rows, f.own_scores, np.ones(len(f.own_rows), dtype=np.bool_))
        for f in (own[place] for place in chosen)
    ]


def _example(
    images: RetrievalSet,
    found: _QueryResult,
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    right: NDArray[np.bool_],
) -> Example:
    return Example(
        images.queries[found.query].numpy(),
        _names(images, found.query),
        [
            ExampleHit(images.database[int(row)].numpy(), float(score), bool(is_right))
            for row, score, is_right in zip(rows, scores, right, strict=True)
        ],
    )


def _names(images: RetrievalSet, query: int) -> str:
    return ", ".join(images.classes[c] for c in images.query_labels[query].nonzero().flatten())
