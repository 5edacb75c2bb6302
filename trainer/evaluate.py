"""Measure a model as the service would search with it: same encode, same scan."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gpq import scan
from gpq.model import Model
from trainer.data import RetrievalSet
from trainer.errors import TrainerError
from trainer.metrics import (
    average_precision,
    tie_aware_average_precision,
    tie_aware_precision_at,
)

ENCODE_BATCH = 256
SCAN_BATCH = 32


@dataclass(frozen=True)
class Measured:
    """mAP over the whole ranked database; ``mAP_tie_aware`` is the headline.

    precision_at_10 is tie-aware too: the expectation over all orders of equals.
    """

    mAP: float
    mAP_tie_aware: float
    precision_at_10: float
    bits: int
    n_query: int
    n_database: int
    unique_codes: int
    largest_tie: int
    model: str

    def as_dict(self) -> dict[str, float | int | str]:
        return asdict(self)


def evaluate(model: Model, pictures: RetrievalSet, engine: str = "auto") -> Measured:
    """Rank the whole database for every query; relevant = same label."""
    if not len(pictures.queries) or not len(pictures.database):
        raise TrainerError("evaluation needs at least one query and one database picture")
    packed = np.concatenate([model.encode(b) for b in _batches(pictures.database, "encoding")])
    luts = np.concatenate([model.lut(b) for b in _batches(pictures.queries, "encoding queries")])
    scanner = scan.build(packed, model.codebook.M, engine)
    labels = pictures.database_labels.numpy()
    figures = []
    for first in tqdm(range(0, len(luts), SCAN_BATCH), desc="scanning", leave=False):
        rows, scores = scanner.search(luts[first : first + SCAN_BATCH], k=len(packed))
        for q in range(len(rows)):
            relevant = labels[rows[q]] == int(pictures.query_labels[first + q])
            figures.append(
                (
                    average_precision(relevant),
                    tie_aware_average_precision(relevant, scores[q]),
                    tie_aware_precision_at(relevant, scores[q], 10),
                )
            )
    plain, tie_aware, precision = np.mean(figures, axis=0)
    counts = np.unique(packed, axis=0, return_counts=True)[1]
    return Measured(
        mAP=round(float(plain), 4),
        mAP_tie_aware=round(float(tie_aware), 4),
        precision_at_10=round(float(precision), 4),
        bits=model.bits,
        n_query=len(luts),
        n_database=len(packed),
        unique_codes=len(counts),
        largest_tie=int(counts.max()),
        model=model.id,
    )


def _batches(pixels: Tensor, what: str) -> "tqdm[Tensor]":
    return tqdm(torch.split(pixels, ENCODE_BATCH), desc=what, leave=False)
