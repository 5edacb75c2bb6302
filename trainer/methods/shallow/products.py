"""Product quantisation: PQ, OPQ and LOPQ, without labels."""

from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np

from gpq.model.codebook import Codebook, K
from trainer.methods.base import CodebookCoder, Coder, Codes, Floats, Lesson
from trainer.methods.shallow.reduction import (
    Reduction,
    dimensions,
    linear,
    random_rotation,
    reduction,
)

CELLS = 16  # of LOPQ
LEAST_OF_A_CELL = 256  # images; a smaller cell uses the rotation and the words of all
EXHAUSTED = 1e-6  # variance of a dimension that holds nothing


def pq(lesson: Lesson) -> Coder:
    """PQ: product quantisation (Jégou, Douze & Schmid, PAMI 2011).

    Deviation: features are divided by their length, and what is split is a random rotation of their
    principal components, so that the sub-vectors share the variance.
    """
    reduce = reduction(lesson.all, dimensions(lesson.M, lesson.all), lesson.seed)
    return _rotated(lesson, reduce, random_rotation(reduce.axes.shape[1], lesson.seed))


def opq(lesson: Lesson) -> Coder:
    """OPQ: optimised product quantisation (Ge, He, Ke & Sun, PAMI 2014).

    It finds in turns codes for a rotation of the features, and the rotation for the codes.
    """
    D = dimensions(lesson.M, lesson.all)
    reduce = reduction(lesson.all, D, lesson.seed)
    reduced = reduce(lesson.all)
    matrix = faiss.OPQMatrix(D, lesson.M)
    matrix.pq = faiss.ProductQuantizer(D, lesson.M, 4)
    matrix.pq.cp.min_points_per_centroid = 1  # fewer than faiss would like are enough
    matrix.train(reduced)

    return _rotated(lesson, reduce, faiss.vector_to_array(matrix.A).reshape(D, D).T)


def _rotated(lesson: Lesson, reduce: Reduction, rotation: Floats) -> Coder:
    """Returns the product quantiser of the reduced and then rotated features."""
    words = _words(reduce(lesson.all) @ rotation, lesson.M, lesson.seed)
    return CodebookCoder(reduce.then(rotation), Codebook(words, score="l2"))


def lopq(lesson: Lesson) -> Coder:
    """LOPQ: locally optimised product quantisation (Kalantidis & Avrithis, CVPR 2014).

    CELLS cells of k-means have each a rotation and words of their own, for the difference of an
    image from the centre of its cell. The rotation is that of principal components, dealt out to
    the codebooks so that the products of their variances are alike.

    Deviation: the number of the cell is not counted among the bits, as an inverted file would store
    it.
    """
    M = lesson.M
    reduce = reduction(lesson.all, dimensions(M, lesson.all), lesson.seed)
    reduced = reduce(lesson.all)
    coarse = _k_means(reduced, CELLS, lesson.seed)
    nearest = _nearest(reduced, coarse)
    residuals = reduced - coarse[nearest]
    whole = _local(residuals, M, lesson.seed)
    cells = [
        _local(residuals[nearest == cell], M, lesson.seed)
        if np.count_nonzero(nearest == cell) >= LEAST_OF_A_CELL
        else whole
        for cell in range(CELLS)
    ]
    return _LocalCoder(reduce, coarse, cells)


@dataclass(frozen=True)
class _Cell:
    """rotation (D,D) of residuals, and words (M,16,d)."""

    rotation: Floats
    words: Floats


class _LocalCoder(Coder):
    """Codes are the number of the cell, and M sub-codes. Scores are 1 - ½ squared distances."""

    def __init__(
        self, reduce: Callable[[Floats], Floats], coarse: Floats, cells: list[_Cell]
    ) -> None:
        self.reduce, self.coarse, self.cells = reduce, coarse, cells

    def encode(self, features: Floats) -> Codes:
        reduced = self.reduce(features)
        nearest = _nearest(reduced, self.coarse)
        M = len(self.cells[0].words)
        codes = np.empty((len(features), 1 + M), dtype=np.uint8)
        codes[:, 0] = nearest
        for number in np.unique(nearest):
            rows = nearest == number
            codes[rows, 1:] = self._of_cell(number).encode(reduced[rows] - self.coarse[number])
        return codes

    def scores(self, queries: Floats, codes: Codes) -> Floats:
        reduced = self.reduce(queries)
        found = np.empty((len(queries), len(codes)), dtype=np.float32)
        for number in np.unique(codes[:, 0]):
            rows = codes[:, 0] == number
            apart = reduced - self.coarse[number]
            found[:, rows] = self._of_cell(number).scores(apart, codes[rows, 1:])
        return found

    def _of_cell(self, number: int) -> CodebookCoder:
        cell = self.cells[number]
        rotate = linear(cell.rotation, np.zeros(len(cell.rotation), np.float32))
        return CodebookCoder(rotate, Codebook(cell.words, score="l2"))


def _local(residuals: Floats, M: int, seed: int) -> _Cell:
    variance, axes = np.linalg.eigh(np.cov(residuals, rowvar=False))  # the smallest first
    dealt = balanced(variance[::-1], M).ravel()
    rotation = np.ascontiguousarray(axes[:, ::-1][:, dealt], dtype=np.float32)
    return _Cell(rotation, _words(residuals @ rotation, M, seed))


def balanced(variances: Floats, M: int) -> np.ndarray:
    """Deals dimensions out to M codebooks (M,D/M), the next always to the codebook with the
    smallest product of variances that has room (eigenvalue allocation, Ge et al. 2014)."""
    dealt: list[list[int]] = [[] for _ in range(M)]
    products = np.zeros(M)
    for number, variance in enumerate(np.log(np.maximum(variances, EXHAUSTED))):
        free = [m for m in range(M) if len(dealt[m]) < len(variances) // M]
        smallest = min(free, key=products.__getitem__)
        dealt[smallest].append(number)
        products[smallest] += variance - np.log(EXHAUSTED)
    return np.array(dealt)


def _words(features: Floats, M: int, seed: int) -> Floats:
    """Returns the words (M,16,d) of k-means in each sub-space of features (N,M·d)."""
    parts = features.reshape(len(features), M, -1)
    return np.stack([_k_means(np.ascontiguousarray(parts[:, m]), K, seed) for m in range(M)])


def _k_means(points: Floats, k: int, seed: int) -> Floats:
    points_of_each = {"min_points_per_centroid": 1, "max_points_per_centroid": len(points)}
    means = faiss.Kmeans(points.shape[1], k, niter=25, seed=seed, **points_of_each)
    means.train(np.ascontiguousarray(points))
    assert means.centroids is not None
    return means.centroids.reshape(k, -1).copy()


def _nearest(points: Floats, means: Floats) -> Codes:
    distances = np.vecdot(means, means) - 2 * points @ means.T
    nearest: Codes = distances.argmin(axis=1).astype(np.uint8)
    return nearest
