"""Measures a model with the same encoding and the same scan as the service."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from gpq.model.codebook import pack
from gpq.model.model import Model
from trainer.data.image_sets import RetrievalSet
from trainer.errors import TrainerError
from trainer.evaluation.collection import Collection, Embedded, embed, of_retrieval_set
from trainer.evaluation.metrics import RankingMetrics, mean_metrics, tie_aware_mean_at
from trainer.evaluation.ranking import Ranking
from trainer.evaluation.searches import rankings

COLOURED = 10  # hits whose colours are compared with those of the whole class


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model at one code length; ``mAP_tie_aware`` is the main one.

    ``mAP`` is over the ranking of the whole database, with equal scores in the order of storing.
    The other figures are expectations over all orders of equal scores. With R right answers for a
    query, ``precision_at_10_or_R`` is the precision at 10, or at R if that is less, and
    ``R_precision`` the precision at R. ``mean_R``: the mean of R over the queries.
    ``colour_at_10``: the distance between the mean colours of the query and of the first ten hits
    of its class, divided by the same distance for all images of its class. It is 1 if the order
    within a class is independent of colour, and None if no query has more than ten images of its
    class to compare.
    ``largest_tie``: number of images that share the most common code.
    """

    mAP: float
    mAP_tie_aware: float
    precision_at_10: float
    precision_at_10_or_R: float
    R_precision: float
    mean_R: float
    colour_at_10: float | None
    bits: int
    n_query: int
    n_database: int
    unique_codes: int
    largest_tie: int
    model: str

    def as_dict(self) -> dict[str, float | int | str | None]:
        return asdict(self)


def evaluate(
    model: Model, images: RetrievalSet, engine: str = "auto", bits: tuple[int, ...] = ()
) -> list[Evaluation]:
    """Ranks the whole database for every query; a hit is relevant if it shares a class.

    ``bits``: shorter code lengths to measure too, with the first bits of the model's codes. The
    model's own length is the last result. Raises TrainerError if there is nothing to search or a
    length is not possible.
    """
    collection = of_retrieval_set(images)
    require_searchable(collection)
    shorter = sorted(set(bits) - {model.bits})
    wrong = [b for b in shorter if b % 4 or not 0 < b < model.bits]
    if wrong:
        raise TrainerError(f"codes of {wrong} bits cannot be cut from codes of {model.bits}")
    embedded = embed(model, collection)
    return [measure(embedded, b // 4, collection, engine) for b in [*shorter, model.bits]]


def require_searchable(collection: Collection) -> None:
    """Raises TrainerError if there is nothing to search for, or any ranking would be perfect."""
    if not len(collection.queries) or not collection.labelled:
        raise TrainerError(
            "nothing to search for: no query can be read, or no two images share a label"
        )
    stored = collection.database_labels[collection.known_rows].all(axis=0)
    everywhere = stored & collection.query_labels.all(axis=0)
    if everywhere.any():
        name = collection.classes[int(everywhere.argmax())]
        raise TrainerError(
            f"all images are of the class {name}, so any ranking would be perfect: add images "
            "of other classes, or leave that label out"
        )


def measure(
    embedded: Embedded,
    M: int,
    collection: Collection,
    engine: str,
    on_ranking: Callable[[Ranking], None] = lambda ranking: None,
) -> Evaluation:
    """Measures the codes of the first M codebooks. ``on_ranking``: called with every ranking."""
    codebook = embedded.codebook.first(M)
    D = M * codebook.Z.shape[2]
    packed = pack(codebook.encode(embedded.database[:, :D]))
    colours, own_colours = collection.database_colours, collection.query_colours
    metrics: list[RankingMetrics] = []
    distances: list[float] = []
    for found in rankings(codebook, embedded.queries[:, :D], packed, collection, engine):
        on_ranking(found)
        relevant, scores = found.relevant, found.scores
        metrics.append(found.metrics)
        colour = np.linalg.norm(colours[found.rows[relevant]] - own_colours[found.query], axis=1)
        if (distance := _relative_distance(colour, scores[relevant])) is not None:
            distances.append(distance)
    means = mean_metrics(metrics)
    counts = np.unique(packed, axis=0, return_counts=True)[1]
    return Evaluation(
        mAP=round(means.average_precision, 4),
        mAP_tie_aware=round(means.tie_aware_average_precision, 4),
        precision_at_10=round(means.precision_at_10, 4),
        precision_at_10_or_R=round(means.precision_at_10_or_R, 4),
        R_precision=round(means.R_precision, 4),
        mean_R=round(means.right, 2),
        colour_at_10=round(float(np.mean(distances)), 4) if distances else None,
        bits=codebook.bits,
        n_query=len(collection.queries),
        n_database=collection.labelled,
        unique_codes=len(counts),
        largest_tie=int(counts.max()),
        model=embedded.model,
    )


def _relative_distance(distances: NDArray[np.float32], scores: NDArray[np.float32]) -> float | None:
    """Returns the mean of the first ten distances divided by the mean of all.

    Returns None if there are no more than ten, or all are 0.
    """
    if len(distances) <= COLOURED or not distances.any():
        return None
    return tie_aware_mean_at(distances, scores, COLOURED) / float(distances.mean())
