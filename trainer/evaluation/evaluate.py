"""Measures a model with the same encoding and the same scan as the service."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gpq.model.codebook import pack
from gpq.model.model import Model
from trainer.data.image_sets import RetrievalSet
from trainer.errors import TrainerError
from trainer.evaluation.metrics import RankingMetrics, mean_metrics, tie_aware_mean_at
from trainer.evaluation.ranking import Ranking, rankings

ENCODE_BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model at one code length; ``mAP_tie_aware`` is the main one.

    ``mAP`` is over the ranking of the whole database, with equal scores in the order of storing.
    ``mAP_tie_aware`` and ``precision_at_10`` are expectations over all orders of equal scores.
    ``colour_at_10``: the distance between the mean colours of the query and of the first ten hits
    of its class, divided by the same distance for all images of its class. It is 1 if the order
    within a class is independent of colour, and None if no query has a distance to compare.
    ``largest_tie``: number of images that share the most common code.
    """

    mAP: float
    mAP_tie_aware: float
    precision_at_10: float
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
    require_searchable(images)
    shorter = sorted(set(bits) - {model.bits})
    wrong = [b for b in shorter if b % 4 or not 0 < b < model.bits]
    if wrong:
        raise TrainerError(f"codes of {wrong} bits cannot be cut from codes of {model.bits}")
    queries = features(model, images.queries, "encoding queries")
    database = features(model, images.database, "encoding")
    return [
        measure(model, b // 4, queries, database, images, engine) for b in [*shorter, model.bits]
    ]


def require_searchable(images: RetrievalSet) -> None:
    """Raises TrainerError if there is nothing to search for, or any ranking would be perfect."""
    if not len(images.queries) or not len(images.database):
        raise TrainerError(
            "nothing to search for: no query can be read, or no two images share a label"
        )
    everywhere = images.database_labels.bool().all(dim=0) & images.query_labels.bool().all(dim=0)
    if everywhere.any():
        name = images.classes[int(everywhere.nonzero()[0])]
        raise TrainerError(
            f"all images are of the class {name}, so any ranking would be perfect: add images "
            "of other classes, or leave that label out"
        )


def features(model: Model, pixels: Tensor, what: str) -> NDArray[np.float32]:
    """(N,3,S,S) uint8 -> (N,D). ``what``: a name for the progress bar."""
    batches = tqdm(torch.split(pixels, ENCODE_BATCH), desc=what, leave=False)
    return np.concatenate([model.features(batch.numpy()) for batch in batches])


def measure(
    model: Model,
    M: int,
    query_features: NDArray[np.float32],
    database_features: NDArray[np.float32],
    images: RetrievalSet,
    engine: str,
    on_ranking: Callable[[Ranking], None] = lambda ranking: None,
) -> Evaluation:
    """Measures the codes of the first M codebooks.

    The features (N,D) are those of the function ``features``. ``on_ranking``: called with every
    ranking.
    """
    codebook = model.codebook.first(M)
    D = M * codebook.Z.shape[2]
    packed = pack(codebook.encode(database_features[:, :D]))
    colours, own_colours = mean_colours(images.database), mean_colours(images.queries)
    metrics: list[RankingMetrics] = []
    distances: list[float] = []
    for found in rankings(codebook, query_features[:, :D], packed, images, engine):
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
        colour_at_10=round(float(np.mean(distances)), 4) if distances else None,
        bits=codebook.bits,
        n_query=len(images.queries),
        n_database=len(packed) - (images.own_rows is not None),
        unique_codes=len(counts),
        largest_tie=int(counts.max()),
        model=model.id,
    )


def mean_colours(pixels: Tensor) -> NDArray[np.float32]:
    """(N,3,S,S) uint8 -> (N,3), the mean colour of each image, 0-255."""
    parts = torch.split(pixels, ENCODE_BATCH)
    return torch.cat([part.float().mean(dim=(2, 3)) for part in parts]).numpy()


def _relative_distance(distances: NDArray[np.float32], scores: NDArray[np.float32]) -> float | None:
    """Returns the mean of the first ten distances divided by the mean of all; None if all are 0."""
    if not distances.any():
        return None
    return tie_aware_mean_at(distances, scores, 10) / float(distances.mean())
