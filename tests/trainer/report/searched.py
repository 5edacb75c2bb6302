"""Small collections for the tests of the report."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import one_hot

from gpq.model.codebook import Codebook, K
from trainer.data.image_sets import RetrievalSet
from trainer.evaluation.collection import Chosen, Collection, Embedded, of_retrieval_set

CLASSES = ("ant", "_bee $5_$10", "<cow>")


def image_set(n: int = 90) -> RetrievalSet:
    """Returns random images of three classes, each of which is searched among all others."""
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    )
    labels = one_hot(torch.arange(n) % 3)
    return RetrievalSet(pixels, labels, pixels, labels, CLASSES, own_rows=torch.arange(n))


def random_collection(n: int = 90, unknown: int = 0) -> Collection:
    """Returns the same as a collection, whose last images have unknown classes."""
    whole = of_retrieval_set(image_set(n))
    known = np.arange(n) < n - unknown
    return replace(
        whole,
        queries=Chosen(whole.queries, np.flatnonzero(known)),
        query_labels=whole.query_labels[known],
        database_labels=whole.database_labels * known[:, None].astype(np.uint8),
        known=known,
        own_rows=np.flatnonzero(known),
        of_unlabelled=unknown,
    )


def embedded(collection: Collection, words: NDArray[np.int64]) -> Embedded:
    """Returns features that are codewords, by their numbers (N,); equal ones are found first."""
    Z = np.eye(K, dtype=np.float32)[None]
    features = Z[0][words]
    assert collection.own_rows is not None
    return Embedded("0" * 64, Codebook(Z), features[collection.own_rows], features)
