"""Merges hits that several parts of one search found."""

import numpy as np
from numpy.typing import NDArray

Hits = tuple[NDArray[np.int64], NDArray[np.float32]]  # rows and scores (Q,k), best first


def best_of(parts: list[Hits]) -> Hits:
    """Returns the k best of several hits (Q,k), in which no row occurs twice.

    Missing hits have the row -1 and the score -inf.
    """
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([r for r, _ in parts], axis=1)
    scores = np.concatenate([s for _, s in parts], axis=1)
    k = parts[0][0].shape[1]
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
