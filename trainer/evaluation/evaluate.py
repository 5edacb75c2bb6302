"""Measure a model as the service would search with it: same encode, same scan."""

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
    """mAP over the whole ranked database; ``mAP_tie_aware`` is the headline.

    precision_at_10 is tie-aware too: the expectation over all orders of equals.
    colour_at_10: how far the mean colour of the first ten hits of the query's class is from
    the query's, as a share of how far that of its whole class is: 1 where the order within
    a class knows nothing of colour; None where it cannot be told.
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
    """Rank the whole database for every query; relevant = a shared class.

    bits: also of these shorter codes, the first bits of the model's. The model's own is
    the last. Raises TrainerError where there is nothing to rank or no such length.
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
    """Raises TrainerError where nothing is to be searched for, or any order would be right."""
    if not len(images.queries) or not len(images.database):
        raise TrainerError(
            "nothing to search for: no query can be read, or no two pictures share a label"
        )
    everywhere = images.database_labels.bool().all(dim=0) & images.query_labels.bool().all(dim=0)
    if everywhere.any():
        name = images.classes[int(everywhere.nonzero()[0])]
        raise TrainerError(
            f"all pictures are of the class {name}, so that any order would be right: give "
            "pictures of others too, or leave that label out"
        )


def features(model: Model, pixels: Tensor, what: str) -> Tensor:
    """(N,3,S,S) uint8 -> (N,D) float32, in the model's memory."""
    batches = tqdm(torch.split(pixels, ENCODE_BATCH), desc=what, leave=False)
    return torch.cat([model.features(batch) for batch in batches])


def measure(
    model: Model,
    M: int,
    query_features: Tensor,
    database_features: Tensor,
    images: RetrievalSet,
    engine: str,
    on_ranking: Callable[[Ranking], None] = lambda ranking: None,
) -> Evaluation:
    """The figures of the first M codebooks; features (N,D) as of ``features``. see: is shown
    every ranking, for what else there is to tell of it."""
    codebook = model.codebook.first(M)
    D = M * codebook.Z.shape[2]
    packed = pack(codebook.encode(database_features[:, :D])).cpu().numpy()
    colours, own_colours = mean_colours(images.database), mean_colours(images.queries)
    metrics: list[RankingMetrics] = []
    nearer: list[float] = []
    for found in rankings(codebook, query_features[:, :D], packed, images, engine):
        on_ranking(found)
        relevant, scores = found.relevant, found.scores
        metrics.append(found.metrics)
        far = np.linalg.norm(colours[found.rows[relevant]] - own_colours[found.query], axis=1)
        if (share := _relative_distance(far, scores[relevant])) is not None:
            nearer.append(share)
    means = mean_metrics(metrics)
    counts = np.unique(packed, axis=0, return_counts=True)[1]
    return Evaluation(
        mAP=round(means.average_precision, 4),
        mAP_tie_aware=round(means.tie_aware_average_precision, 4),
        precision_at_10=round(means.precision_at_10, 4),
        colour_at_10=round(float(np.mean(nearer)), 4) if nearer else None,
        bits=codebook.bits,
        n_query=len(images.queries),
        n_database=len(packed) - (images.own_rows is not None),
        unique_codes=len(counts),
        largest_tie=int(counts.max()),
        model=model.id,
    )


def mean_colours(pixels: Tensor) -> NDArray[np.float32]:
    """(N,3,S,S) uint8 -> (N,3), 0-255."""
    parts = torch.split(pixels, ENCODE_BATCH)
    return torch.cat([part.float().mean(dim=(2, 3)) for part in parts]).numpy()


def _relative_distance(far: NDArray[np.float32], scores: NDArray[np.float32]) -> float | None:
    """The mean of the first ten over the mean of all; None where all are equally far."""
    if not far.any():
        return None
    return tie_aware_mean_at(far, scores, 10) / float(far.mean())
