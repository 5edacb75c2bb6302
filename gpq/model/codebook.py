"""Encodes features with the PQ table Z and makes look-up tables (paper, sections 3.1 and 3.2).

In the paper, features and codewords are intra-normalised: every d-dimensional sub-vector has unit
length, so that the inner product of two sub-vectors is their cosine. Codebooks of other methods
compare otherwise; see ``SCORES``.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

K = 16  # codewords in a codebook: 4 bits, so that a table of them fits a SIMD register
LIKE = 0.75  # mean cosine with a class above which a query is expanded towards it
SURE = 32.0  # scale of the softmax over classes
LEAST_LENGTH = 1e-12  # shorter vectors are divided by this, so that zero stays zero
SIGNS_OF_A_WORD = 4  # of a Hamming code: four of its bits are a sub-code
EXACT_BITS = 24  # of the significand of a float32

Score = Literal["cosine", "l2", "dot", "hamming"]
SCORES: dict[Score, str] = {
    "cosine": "the mean cosine of sub-vectors",
    "l2": "1 less half the squared distance, which is the cosine of vectors of unit length",
    "dot": "the inner product",
    "hamming": "1 less twice the share of bits that differ",
}

Floats = NDArray[np.float32]


def intra_normalise(features: Floats, codebooks: int) -> Floats:
    """Splits features (B,D) into sub-vectors (B,M,d) of unit length."""
    return _unit(features.reshape(len(features), codebooks, features.shape[1] // codebooks))


def pack(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Packs codes (N,M) uint8 below 16 to (N,ceil(M/2)) uint8; the low nibble is the even m."""
    packed = codes[:, 0::2].copy()
    packed[:, : codes.shape[1] // 2] |= codes[:, 1::2] << 4
    return packed


def unpack(packed: NDArray[np.uint8], codebooks: int) -> NDArray[np.uint8]:
    """Unpacks codes (N,ceil(M/2)) uint8 to (N,M) uint8, the inverse of ``pack``."""
    nibbles = np.empty((len(packed), 2 * packed.shape[1]), dtype=np.uint8)
    nibbles[:, 0::2] = packed & 15
    nibbles[:, 1::2] = packed >> 4
    return nibbles[:, :codebooks]


@dataclass(frozen=True)
class Codebook:
    """The codewords of a model and the means that its searches use.

    ``Z``: codewords (M,K,d) float32; a sub-code is the number of the nearest codeword. They have
    unit length if the score is ``cosine``, and are ``sign_words`` if it is ``hamming``.
    ``score``: how a query is compared with a code, one of SCORES. ``cosine`` and ``hamming`` divide
    each sub-vector by its length. ``hamming`` compares the query's code, the others the query
    itself. The higher score is the nearer one, and that of equal vectors is 1, except with ``dot``.
    The others need no means and no classes.
    ``means``: (M,K,d) float32, of at most length 1: the mean of the sub-vectors that have a
    sub-code (``means_of``), or a vector that the training learnt in its place. A search compares
    queries with them, or with Z if they are None.
    ``classes``: (M,L,d) float32, of at most length 1: the mean sub-vectors of L classes, by which
    ``expanded`` expands a query. If they are None, queries are not expanded.
    """

    Z: Floats
    means: Floats | None = None
    classes: Floats | None = None
    score: Score = "cosine"

    @property
    def M(self) -> int:
        return len(self.Z)

    @property
    def D(self) -> int:
        return self.M * int(self.Z.shape[2])

    @property
    def bits(self) -> int:
        return 4 * self.M

    def first(self, M: int) -> "Codebook":
        """Returns the first M codebooks."""
        means, classes = (
            None if array is None else array[:M] for array in (self.means, self.classes)
        )
        return Codebook(self.Z[:M], means, classes, self.score)

    def encode(self, features: Floats) -> NDArray[np.uint8]:
        """Encodes features (B,D) float32 to the nearest codewords (B,M) uint8."""
        codes: NDArray[np.uint8] = self._nearness(features).argmax(axis=-1).astype(np.uint8)
        return codes

    def margin(self, features: Floats) -> Floats:
        """Returns how far the codes of features (B,D) are from any other code: (B,) float32.

        The margin is the smallest difference, over all sub-vectors, between the cosines with the
        nearest and with the second nearest codeword; if vectors are not divided by their length, it
        is the difference of half the squared distances, over the squared distance of the codeword
        that is furthest from the mean of all.
        """
        best = np.partition(self._nearness(features), (-2, -1), axis=-1)
        margins = best[..., -1] - best[..., -2]
        if not self._is_angular:
            _, words = self._centred
            margins /= np.maximum(np.vecdot(words, words).max(axis=1), LEAST_LENGTH)
        margin: Floats = margins.min(axis=-1)
        return margin

    def decode(self, codes: NDArray[np.uint8]) -> Floats:
        """Returns the codewords (B,D) float32 of codes (B,M) uint8."""
        return self.Z[np.arange(self.M), codes].reshape(len(codes), self.M * self.Z.shape[2])

    def lut(self, features: Floats) -> Floats:
        """Returns look-up tables (Q,M,K) float32 of features (Q,D).

        The score of a code is the plain float32 sum of LUT[m, code_m] over m = 0…M-1 in that
        order. With ``cosine`` it is the expected mean cosine between the query and an image with
        the code.
        """
        if self.score == "hamming":
            return self._equal_signs(features)
        if self.score != "cosine":
            return self._of_lengths(features)
        words = self.Z if self.means is None else self.means
        table = _products(self.expanded(intra_normalise(features, self.M)), words)
        table /= self.M
        return table

    def expanded(self, x: Floats) -> Floats:
        """Moves sub-vectors (Q,M,d) of queries halfway to the means of the classes they resemble.

        Query expansion (Chum et al., ICCV 2007) by class means: x + ½ Σ_c p_c (c - x). p is the
        softmax of SURE times the mean cosine with each class and, for none of them, SURE times
        LIKE. A query that resembles no class hardly changes.
        """
        if self._class_rows is None:
            return x
        classes, _ = self._class_rows
        p = self.probabilities(x)
        towards = (p @ classes).reshape(x.shape)
        moved: Floats = x + (towards - p.sum(axis=1)[:, None, None] * x) / 2
        return moved

    def probabilities(self, x: Floats) -> Floats:
        """Returns the p (Q,L) of ``expanded`` for sub-vectors (Q,M,d); L is 0 without classes.

        Those of one query add up to less than 1: the rest is that of none of the classes.
        """
        if self._class_rows is None:
            return np.empty((len(x), 0), dtype=np.float32)
        _, directions = self._class_rows
        likeness = x.reshape(len(x), directions.shape[1]) @ directions.T / self.M
        none = np.full((len(x), 1), LIKE, dtype=np.float32)
        logits = np.concatenate([likeness, none], axis=1)
        logits *= SURE
        return _softmax(logits)[:, :-1]

    def lut_of_class(self, features: Floats, number: int) -> Floats:
        """Returns the part (Q,M,K) of the look-up tables of features (Q,D) that is due to a class.

        It is the look-up table of the projection of each expanded sub-vector onto the direction of
        the class's mean sub-vector. The rest of a score is due to all that is not the class.
        """
        if self.classes is None:
            raise ValueError("the codebook has no classes")
        words = self.Z if self.means is None else self.means
        direction = _unit(self.classes[:, number])
        x = self.expanded(intra_normalise(features, self.M))
        table = _products(np.vecdot(x, direction)[..., None] * direction, words)
        table /= self.M
        return table

    def means_of(self, features: Floats) -> Floats:
        """Returns the mean (M,K,d) float32 of the sub-vectors of features (N,D) with each sub-code.

        The codeword itself counts as one of the sub-vectors. x · mean is the mean of x · y over
        the sub-vectors y that have the sub-code: their expected cosine with a query's x (the
        conditional mean: Jégou et al., PAMI 2011, section 2).
        """
        x, codes = intra_normalise(features, self.M), self.encode(features)
        sums, counts = self.Z.copy(), np.ones(self.Z.shape[:2], dtype=np.float32)
        for m in range(self.M):
            has_code = (codes[:, m] == np.arange(K)[:, None]).astype(np.float32)
            sums[m] += has_code @ x[:, m]
            counts[m] += has_code.sum(axis=1)
        return sums / counts[:, :, None]

    @cached_property
    def _class_rows(self) -> tuple[Floats, Floats] | None:
        """The classes as rows (L,D), and the same with sub-vectors of unit length."""
        if self.classes is None:
            return None
        by_class = self.classes.transpose(1, 0, 2)
        shape = len(by_class), self.M * self.Z.shape[2]
        return by_class.reshape(shape), _unit(by_class).reshape(shape)

    @cached_property
    def _centred(self) -> tuple[Floats, Floats]:
        """The mean codeword (M,d) of each codebook, and the codewords less it. Distances between
        vectors near the mean lose fewer digits than those between vectors far from 0."""
        mean = self.Z.mean(axis=1)
        return mean, self.Z - mean[:, None]

    @property
    def _is_angular(self) -> bool:
        return self.score in ("cosine", "hamming")

    def _nearness(self, features: Floats) -> Floats:
        """Returns numbers (B,M,K) that are larger for nearer words: the cosines of sub-vectors, or
        ½ x · x less half the squared distances."""
        if self._is_angular:
            return _products(intra_normalise(features, self.M), self.Z)
        mean, words = self._centred
        found = _products(self._split(features) - mean, words)
        found -= np.vecdot(words, words) / 2
        return found

    def _of_lengths(self, features: Floats) -> Floats:
        """Returns tables of inner products, or of 1/M - ½ squared distances."""
        if self.score == "dot":
            return _products(self._split(features), self.Z)
        mean, words = self._centred
        x = self._split(features) - mean
        table = _products(x, words)
        table += np.float32(1 / self.M) - np.vecdot(x, x)[..., None] / 2
        table -= np.vecdot(words, words) / 2
        return table

    def _equal_signs(self, features: Floats) -> Floats:
        """Returns tables of cosines between sign words / M, of which any sum is exact.

        Codes at the same Hamming distance thus have the same score, whichever of their bits differ.
        For that, 1/M has as many binary digits fewer as the largest sum needs. It is rounded up, so
        that equal codes score 1 at least.
        """
        words = self._split(self.decode(self.encode(features)))
        digits = EXACT_BITS - int(2 * self.M).bit_length()
        fraction, exponent = np.frexp(1 / self.M)
        share = np.ldexp(np.ceil(np.ldexp(fraction, digits)), exponent - digits)
        table: Floats = _products(words, self.Z) * np.float32(share)
        return table

    def _split(self, features: Floats) -> Floats:
        parts: Floats = features.reshape(len(features), self.M, self.Z.shape[2])
        return parts


def sign_words(codebooks: int) -> Floats:
    """Returns the words (M,16,4) of Hamming codes: bit n of a sub-code is the sign of number n."""
    bits = np.arange(K)[:, None] >> np.arange(SIGNS_OF_A_WORD) & 1
    words: Floats = np.where(bits, 0.5, -0.5).astype(np.float32)
    return np.tile(words, (codebooks, 1, 1))


def _products(x: Floats, words: Floats) -> Floats:
    """x (B,M,d), words (M,K,d) -> (B,M,K), the inner products in each sub-space."""
    found = np.empty((*x.shape[:2], words.shape[1]), dtype=np.float32)
    np.matmul(x.transpose(1, 0, 2), words.transpose(0, 2, 1), out=found.transpose(1, 0, 2))
    return found


def _unit(vectors: Floats) -> Floats:
    """Divides the last axis by its length."""
    lengths = np.sqrt(np.vecdot(vectors, vectors))
    unit: Floats = vectors / np.maximum(lengths, LEAST_LENGTH)[..., None]
    return unit


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares
