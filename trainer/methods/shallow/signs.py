"""Hashing by signs: ITQ and SH without labels, SDH with labels."""

import faiss
import numpy as np
import torch
from torch import Tensor, nn

from trainer.methods.base import Coder, Floats, Lesson, run, signs_of
from trainer.methods.shallow.reduction import linear, reduction

ANCHORS = 1000  # of SDH's kernel
ROUNDS = 5  # of SDH
LEAST_SPAN = 1e-6  # of features that are all alike
RIDGE, FIT = 1.0, 1e-5  # lambda and nu of SDH


def itq(lesson: Lesson) -> Coder:
    """ITQ: iterative quantisation (Gong & Lazebnik, CVPR 2011): the rotation of the first
    components that brings them nearest to their signs."""
    reduce = reduction(lesson.all, lesson.bits, lesson.seed)
    rotation = faiss.ITQMatrix(lesson.bits)
    rotation.seed = lesson.seed + 1  # 0 is not allowed
    rotation.train(np.ascontiguousarray(reduce(lesson.all)))
    matrix = faiss.vector_to_array(rotation.A).reshape(lesson.bits, -1).T
    return signs_of(reduce.then(matrix), lesson.bits)


def sh(lesson: Lesson) -> Coder:
    """SH: spectral hashing (Weiss, Torralba & Fergus, NIPS 2008): the signs of the smoothest
    eigenfunctions of a uniform distribution along the principal components."""
    reduce = reduction(lesson.all, lesson.bits, lesson.seed)
    reduced = reduce(lesson.all)
    low, high = reduced.min(axis=0), reduced.max(axis=0)
    span = np.maximum(high - low, LEAST_SPAN)
    axis, mode = smoothest(span, lesson.bits)
    omega = (mode * np.pi / span[axis]).astype(np.float32)
    of_axis = np.eye(len(low), dtype=np.float32)[:, axis] * omega
    phase = np.float32(np.pi / 2) - low[axis] * omega
    return signs_of(nn.Sequential(reduce.then(of_axis, phase), Sine()), lesson.bits)


class Sine(nn.Module):
    """Computes the sine of each number."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


def smoothest(widths: Floats, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the axes and the modes, from 1, of the ``count`` eigenfunctions with the smallest
    eigenvalues: those of the longest waves."""
    modes = np.arange(1, count + 1)
    frequencies = modes / widths[:, None]
    order = np.argsort(frequencies, axis=None, kind="stable")[:count]
    axis, place = np.unravel_index(order, frequencies.shape)
    return axis, modes[place]


def sdh(lesson: Lesson) -> Coder:
    """SDH: supervised discrete hashing (Shen, Shen, Liu & Shen, CVPR 2015).

    Codes from which a linear classifier tells the classes are found bit by bit, with the squared
    loss, together with a kernel regression that predicts them.
    """
    rng = np.random.default_rng(lesson.seed)
    count = min(ANCHORS, len(lesson.labelled))
    anchors = lesson.labelled[rng.choice(len(lesson.labelled), count, replace=False)]
    distances = run(SquaredDistances(anchors), lesson.labelled)
    kernel = Kernel(anchors, max(float(np.median(distances)), LEAST_SPAN))
    seen = run(kernel, lesson.labelled)
    mean = seen.mean(axis=0)
    seen = seen - mean
    gram = seen.T @ seen + 1e-3 * np.eye(count, dtype=np.float32)
    target = lesson.labels.astype(np.float32)
    signs = np.where(rng.random((len(seen), lesson.bits)) < 0.5, -1, 1).astype(np.float32)
    for _ in range(ROUNDS):
        P = np.linalg.solve(gram, seen.T @ signs)
        W = np.linalg.solve(
            signs.T @ signs + RIDGE * np.eye(lesson.bits, dtype=np.float32), signs.T @ target
        )
        signs = discrete(signs, W, target @ W.T + FIT * (seen @ P))
    P = np.linalg.solve(gram, seen.T @ signs).astype(np.float32)
    return signs_of(nn.Sequential(kernel, linear(P, -mean @ P)), lesson.bits)


def discrete(signs: Floats, W: Floats, Q: Floats, most: int = 10) -> Floats:
    """Minimises ||B W||² - 2 tr(B Qᵀ) over signs B (N,bits), one bit after the other, until none
    changes (discrete cyclic coordinate descent).

    W (bits,C), Q (N,bits).
    """
    signs = signs.copy()
    for _ in range(most):
        before = signs.copy()
        for bit in range(len(W)):
            others = np.arange(len(W)) != bit
            z = Q[:, bit] - signs[:, others] @ (W[others] @ W[bit])
            signs[:, bit] = np.where(z >= 0, 1, -1)
        if (signs == before).all():
            break
    return signs


class SquaredDistances(nn.Module):
    """Features (N,E) -> (N,A), to the anchors (A,E)."""

    def __init__(self, anchors: Floats) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.from_numpy(anchors))
        self.anchors: Tensor

    def forward(self, features: Tensor) -> Tensor:
        lengths = (features * features).sum(dim=1, keepdim=True)
        of_anchors = (self.anchors * self.anchors).sum(dim=1)
        return (lengths - 2 * features @ self.anchors.T + of_anchors).clamp(min=0)


class Kernel(SquaredDistances):
    """Features (N,E) -> exp(-d²/width) of their distances d to the anchors, (N,A)."""

    def __init__(self, anchors: Floats, width: float) -> None:
        super().__init__(anchors)
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        return torch.exp(-super().forward(features) / self.width)
