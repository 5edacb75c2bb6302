"""What a method learns from, and what it makes: a coder, which encodes and scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpq.model.codebook import K

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
SIGNS_OF_A_GROUP = 4  # signs that make one sub-code


@dataclass(frozen=True)
class Lesson:
    """Features that a method learns from.

    labelled (L,E), labels (L,C) uint8 with 1 for each class of an image, and unlabelled (U,E).
    ``bits``: length of the codes, a multiple of 4. ``seed``: of all random numbers.
    """

    labelled: Floats
    labels: NDArray[np.uint8]
    unlabelled: Floats
    bits: int
    seed: int

    @property
    def M(self) -> int:
        return self.bits // 4

    @property
    def all(self) -> Floats:
        """The features of all images, (L+U,E)."""
        return np.concatenate([self.labelled, self.unlabelled])


class Coder(ABC):
    """Encodes features and scores codes."""

    @abstractmethod
    def encode(self, features: Floats) -> Codes:
        """Features (N,E) -> codes (N,W), W numbers for each image."""

    @abstractmethod
    def scores(self, queries: Floats, codes: Codes) -> Floats:
        """Features (Q,E) of queries and codes (N,W) -> scores (Q,N); a higher one is nearer."""


class TableCoder(Coder):
    """A coder whose score is a sum of one table entry for each of M sub-codes below 16."""

    @abstractmethod
    def tables(self, queries: Floats) -> Floats:
        """Features (Q,E) -> tables (Q,M,16)."""

    def scores(self, queries: Floats, codes: Codes) -> Floats:
        tables = self.tables(queries)
        found = np.zeros((len(queries), len(codes)), dtype=np.float32)
        for m in range(tables.shape[1]):
            found += tables[:, m, codes[:, m]]
        return found


class SignCoder(TableCoder):
    """Codes of signs, compared by the Hamming distance.

    ``project``: features (N,E) -> (N,bits), whose signs are the code. Four signs are a sub-code,
    whose table holds the number of equal signs of each of the 16.
    """

    def __init__(self, project: Callable[[Floats], Floats]) -> None:
        self.project = project

    def encode(self, features: Floats) -> Codes:
        signs = (self.project(features) > 0).reshape(len(features), -1, SIGNS_OF_A_GROUP)
        codes: Codes = (signs << np.arange(SIGNS_OF_A_GROUP)).sum(axis=2).astype(np.uint8)
        return codes

    def tables(self, queries: Floats) -> Floats:
        differing = self.encode(queries)[:, :, None] ^ np.arange(K, dtype=np.uint8)
        equal: Floats = np.float32(SIGNS_OF_A_GROUP) - np.bitwise_count(differing)
        return equal


class ProductCoder(TableCoder):
    """Product quantisation: a sub-code is the number of the nearest word of its codebook.

    ``project``: features (N,E) -> (N,M·d). words (M,16,d). Scores are inner products with words, or
    with ``squared`` minus the squared distances, asymmetric in both cases: the query is not
    quantised.
    """

    def __init__(
        self, project: Callable[[Floats], Floats], words: Floats, *, squared: bool = False
    ) -> None:
        self.project, self.words, self.squared = project, words, squared

    def encode(self, features: Floats) -> Codes:
        nearest: Codes = self._distances(features).argmin(axis=2).astype(np.uint8)
        return nearest

    def tables(self, queries: Floats) -> Floats:
        return -self._distances(queries) if self.squared else self._products(queries)

    def _distances(self, features: Floats) -> Floats:
        """Returns squared distances (N,M,16), less the squared length of each sub-vector."""
        lengths = np.vecdot(self.words, self.words)
        distances: Floats = lengths - 2 * self._products(features)
        return distances

    def _products(self, features: Floats) -> Floats:
        M, _, d = self.words.shape
        parts = self.project(features).reshape(len(features), M, d)
        products: Floats = np.einsum("nmd,mkd->nmk", parts, self.words, optimize=True)
        return products
