"""Trains a method on some material and measures its codes."""

import time
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from trainer.compare.material import Material
from trainer.evaluation.metrics import mean_metrics
from trainer.evaluation.ranking import ranked
from trainer.methods import METHODS
from trainer.methods.base import Coder, Codes, Floats

TOGETHER = 32  # queries whose scores are computed at a time


@dataclass(frozen=True)
class Figures:
    """What a method is worth at one code length.

    ``mAP``, ``precision_at_10``: expectations over all orders of equal scores. ``unique_codes``,
    ``largest_tie``: different codes of the database, and images that share the commonest one.
    ``learn_s``: seconds to learn, without the features. ``encode_us``: microseconds to encode one
    image's features. ``score_ms``: milliseconds to score one query with all different codes of the
    database, in numpy.
    """

    method: str
    bits: int
    seed: int
    mAP: float
    precision_at_10: float
    unique_codes: int
    largest_tie: int
    learn_s: float
    encode_us: float
    score_ms: float
    n_query: int
    n_database: int


def measure(name: str, material: Material, bits: int, seed: int) -> Figures:
    """Learns by the method ``name`` and ranks the whole database for every query."""
    began = time.perf_counter()
    coder = METHODS[name].learn(material.lesson(bits, seed))
    learnt = time.perf_counter()
    codes = coder.encode(material.database)
    encoded = time.perf_counter()
    unique, of_row, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    metrics, scoring = [], 0.0
    queries, stored = material.queries, material.database_labels.T.astype(np.float32)
    for first in tqdm(range(0, len(queries), TOGETHER), desc=f"{name} {bits}", leave=False):
        some = slice(first, first + TOGETHER)
        scores, seconds = _scores(coder, queries[some], unique)
        scoring += seconds
        relevant = material.query_labels[some].astype(np.float32) @ stored > 0
        for number, (line, right) in enumerate(zip(scores, relevant, strict=True), first):
            metrics.append(ranked(number, line[of_row.ravel()], right).metrics)
    means = mean_metrics(metrics)
    return Figures(
        name,
        bits,
        seed,
        round(means.tie_aware_average_precision, 4),
        round(means.precision_at_10, 4),
        len(unique),
        int(counts.max()),
        round(learnt - began, 1),
        round(1e6 * (encoded - learnt) / len(codes), 1),
        round(1e3 * scoring / len(queries), 2),
        len(queries),
        len(codes),
    )


def _scores(coder: Coder, queries: Floats, codes: Codes) -> tuple[Floats, float]:
    began = time.perf_counter()
    scores = coder.scores(queries, codes)
    return scores, time.perf_counter() - began
