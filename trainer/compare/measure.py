"""Trains a method on some material and measures its codes."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from trainer.compare.material import Material
from trainer.evaluation.metrics import Counts, of_scores
from trainer.evaluation.ranking import Ranking, ranked
from trainer.methods import Method
from trainer.methods.base import Coder, Codes

TOGETHER = 32  # queries whose scores are computed at a time
MOST_KEPT = 64  # sets of labels whose relevant codes are kept


@dataclass(frozen=True)
class Figures:
    """What a method is worth at one code length.

    ``mAP``, ``precision_at_10``: expectations over all orders of equal scores. ``mAP_error``: the
    standard error of mAP, by the queries. ``unique_codes``,
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
    mAP_error: float = 0.0


class TooSlowError(Exception):
    """A method has not learnt within the time that it may take."""


def measure(
    name: str, method: Method, material: Material, bits: int, seed: int, limit: float = math.inf
) -> tuple[Figures, Coder]:
    """Learns by a method and ranks the whole database for every query.

    ``limit``: seconds that learning may take. Raises TooSlowError.
    """
    began = time.perf_counter()
    with _within(limit):
        coder = method.learn(material.lesson(bits, seed))
    learnt = time.perf_counter()
    codes = coder.encode(material.database)
    encoded = time.perf_counter()
    unique, counts = np.unique(codes, axis=0, return_counts=True)
    some = material.queries[:TOGETHER]
    ready = time.perf_counter()
    coder.scores(some, unique)
    scored = time.perf_counter()
    mAP, error, precision = _precisions(coder, codes, material, name)
    figures = Figures(
        name,
        bits,
        seed,
        round(mAP, 4),
        round(precision, 4),
        len(unique),
        int(counts.max()),
        round(learnt - began, 1),
        round(1e6 * (encoded - learnt) / len(codes), 1),
        round(1e3 * (scored - ready) / len(some), 2),
        len(material.queries),
        len(codes),
        round(error, 4),
    )
    return figures, coder


def _precisions(
    coder: Coder, codes: Codes, material: Material, what: str
) -> tuple[float, float, float]:
    """Returns the mAP, its standard error and the precision at 10, from how many images share each
    code."""
    unique, of_row, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    stored = material.database_labels.T.astype(np.float32)
    hits_of: dict[bytes, Counts] = {}  # by the labels of a query
    found = []
    for first in tqdm(range(0, len(material.queries), TOGETHER), desc=what, leave=False):
        some = slice(first, first + TOGETHER)
        scores = coder.scores(material.queries[some], unique)
        for line, labels in zip(scores, material.query_labels[some], strict=True):
            key = labels.tobytes()
            if key not in hits_of:
                if len(hits_of) == MOST_KEPT:
                    hits_of.clear()
                relevant = labels.astype(np.float32) @ stored > 0
                hits_of[key] = np.bincount(of_row.ravel()[relevant], minlength=len(unique))
            found.append(of_scores(line, hits_of[key], counts))
    means, error = np.mean(found, axis=0), np.std(found, axis=0) / len(found) ** 0.5
    return float(means[0]), float(error[0]), float(means[1])


def rankings(coder: Coder, codes: Codes, material: Material, what: str) -> Iterator[Ranking]:
    """Yields the ranking of the whole database for each query.

    ``codes``: those of the database. ``what``: a name for the progress bar.
    """
    unique, of_row = np.unique(codes, axis=0, return_inverse=True)
    queries, stored = material.queries, material.database_labels.T.astype(np.float32)
    for first in tqdm(range(0, len(queries), TOGETHER), desc=what, leave=False):
        some = slice(first, first + TOGETHER)
        scores = coder.scores(queries[some], unique)
        relevant = material.query_labels[some].astype(np.float32) @ stored > 0
        for number, (line, right) in enumerate(zip(scores, relevant, strict=True), first):
            yield ranked(number, line[of_row.ravel()], right)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises TooSlowError in the main thread once the time is over, between two steps of Python."""
    if seconds == math.inf:
        yield
        return

    def stop(*_: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
