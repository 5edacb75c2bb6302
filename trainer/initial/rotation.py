"""Learns the projection of features into sub-vectors, from features with or without labels.

The method is the optimised product quantisation of Ge et al. (CVPR 2013) with four changes. The
spectrum of the features is flattened, because images of other kinds differ in what hardly varies
among those that are learnt from. The strongest components are those in which the features differ
and in which classes and kinds differ. Sub-vectors get unit length, as everywhere in GPQ. The codes
are nested: the subspace of the first codebooks has half of the variance of the strongest ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from gpq.model.codebook import K
from trainer.components.clustering import spherical_k_means

EXPONENT = 0.3  # of the variances in the deviations of components; 0.5 leaves them, 0 whitens
CLASSIFIER = 8.0  # weight of the differences of a classifier's classes; that of features is 1
KINDS = 1.0  # weight of the differences of kinds
LEAST_VARIANCE = 1e-6  # of the largest one
REFINEMENTS = 10
STARTING_POINTS = 2048  # features from which codewords are initialised


@dataclass(frozen=True)
class Projection:
    """A linear map of features, whose length is 1, to sub-vectors: x = W (f - mean).

    W (D,E) and mean (E,), float32. ``words``: unit codewords (M,K,d) of unit sub-vectors.
    """

    W: Tensor
    mean: Tensor
    words: Tensor


@dataclass(frozen=True)
class Differences:
    """What tells images of different kinds apart.

    ``classifier``: weights (C,E) of a layer that takes the features and names C classes. ``kinds``:
    labels (N,) int64 of the features. Either may be None.
    """

    classifier: Tensor | None = None
    kinds: Tensor | None = None


def learn(
    features: Tensor,
    M: int,
    d: int,
    groups: Sequence[int],
    iterations: int,
    seed: int,
    differences: Differences | None = None,
) -> Projection:
    """Learns the projection of unit features (N,E) into M sub-vectors of d numbers.

    ``groups``: numbers of codebooks, M in all. The first one, the first two and so on are usable as
    codes themselves. E must be at least M·d.
    """
    mean = features.mean(dim=0)
    centred = features - mean
    flattened = _flattened(centred, M * d, differences or Differences())
    y = centred @ flattened
    variances, components = _components(y)
    y, flattened = y @ components, flattened @ components
    generator = torch.Generator().manual_seed(seed)
    parts, words = [], []
    progress = tqdm(total=len(groups) * iterations, desc="rotating", unit="step", leave=False)
    with progress:
        for basis, count in zip(_divided(variances, d, groups), groups, strict=True):
            seen = functional.normalize(y @ basis, dim=1)
            rotation, codewords = rotated(seen, count, d, iterations, generator, progress)
            parts.append(flattened @ basis @ rotation.T)
            words.append(codewords)
    return Projection(torch.cat(parts, dim=1).T.contiguous(), mean, torch.cat(words))


def _components(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the variances (E,), in falling order, and principal axes (E,E) of features (N,E)."""
    # In float32, LAPACK may find no eigenvectors (NaN) if there are fewer images than features.
    covariance = (centred.T @ centred / len(centred)).double()
    variances, components = (found.float() for found in torch.linalg.eigh(covariance))
    return variances.flip(0), components.flip(1)


def _flattened(centred: Tensor, D: int, differences: Differences) -> Tensor:
    """Returns the linear map (E,D) to the D strongest components, with a flattened spectrum.

    A component is strong in which the centred features (N,E) vary, and in which the scores of the
    classifier and the means of the kinds do (as in linear discriminant analysis).
    """
    variances, components = _components(centred)
    variances = variances.clamp(min=float(LEAST_VARIANCE * variances[0]))
    flattened = components * variances ** (EXPONENT - 0.5)
    spread = _scaled(torch.diag(variances ** (2 * EXPONENT)))
    if differences.classifier is not None:
        weights = differences.classifier - differences.classifier.mean(dim=0)
        rows = weights @ (components * variances ** (0.5 - EXPONENT))
        spread += CLASSIFIER * _scaled(rows.T @ rows)
    if differences.kinds is not None:
        means = _means(centred @ flattened, differences.kinds)
        spread += KINDS * _scaled(means.T @ means)
    _, strongest = torch.linalg.eigh(spread.double())
    chosen: Tensor = strongest.flip(1)[:, :D].float()
    return flattened @ chosen


def _scaled(spread: Tensor) -> Tensor:
    """Returns a covariance (E,E) with the sum of variances 1."""
    return spread / spread.trace().clamp(min=1e-12)


def _means(x: Tensor, kinds: Tensor) -> Tensor:
    """Returns the mean (C,E) of the features x (N,E) of each of the ``kinds`` (N,)."""
    _, numbers = torch.unique(kinds, return_inverse=True)
    counts = torch.bincount(numbers)
    sums = torch.zeros(len(counts), x.shape[1]).index_add_(0, numbers, x)
    return sums / counts[:, None]


def _divided(variances: Tensor, d: int, groups: Sequence[int]) -> list[Tensor]:
    """Divides a space into orthogonal subspaces, one for each group of codebooks.

    variances (D,) of the coordinates. Returns orthonormal bases (D,count·d). The subspace of a
    group has the sums of its strongest coordinates with as many others, so that the differences,
    which have the same variance, are left for later groups.
    """
    basis, found = torch.eye(len(variances)), []
    for count in groups[:-1]:
        n = count * d
        strongest = torch.argsort((basis**2 * variances[:, None]).sum(dim=0), descending=True)
        first, second, rest = strongest[:n], strongest[n : 2 * n], strongest[2 * n :]
        if len(second) < n:
            raise ValueError(f"groups {groups}: a group may have at most half of what is left")
        found.append((basis[:, first] + basis[:, second]) / 2**0.5)
        differences = (basis[:, first] - basis[:, second]) / 2**0.5
        basis = torch.cat([differences, basis[:, rest]], dim=1)
    return [*found, basis]


def rotated(
    y: Tensor,
    M: int,
    d: int,
    iterations: int,
    generator: torch.Generator,
    progress: Any | None = None,
) -> tuple[Tensor, Tensor]:
    """Finds the rotation R (D,D) after which sub-vectors are nearest to K codewords each.

    y (N,D), D = M·d. Alternates between codewords for the rotation and the rotation for the
    codewords (orthogonal Procrustes problem). Returns R and unit codewords (M,K,d).
    """
    D = M * d
    R, _ = torch.linalg.qr(torch.randn(D, D, generator=generator))
    words = _first_words(functional.normalize((y @ R.T).view(-1, M, d), dim=-1))
    for _ in range(iterations):
        x = (y @ R.T).view(-1, M, d)
        codes = torch.einsum("nmd,mkd->nmk", functional.normalize(x, dim=-1), words).argmax(dim=2)
        member = functional.one_hot(codes, K).to(x.dtype)
        sums = torch.einsum("nmk,nmd->mkd", member, x)
        counts = member.sum(dim=0)[:, :, None]
        quantised = (sums / counts.clamp(min=1))[torch.arange(M), codes].flatten(1)
        U, _, V = torch.linalg.svd(quantised.T @ y)
        R = U @ V
        unit = torch.einsum("nmk,nmd->mkd", member, functional.normalize(x, dim=-1))
        words = functional.normalize(torch.where(counts == 0, words, unit), dim=-1)
        if progress:
            progress.update()
    x = functional.normalize((y @ R.T).view(-1, M, d), dim=-1)
    return R, _refined(x, words)


def _first_words(x: Tensor) -> Tensor:
    """Returns codewords (M,K,d) that fit some of the unit sub-vectors (N,M,d)."""
    return spherical_k_means(x[:STARTING_POINTS].transpose(0, 1).contiguous(), K)


def _refined(x: Tensor, words: Tensor) -> Tensor:
    """Moves codewords (M,K,d) to the means of the sub-vectors (N,M,d) that are nearest to them."""
    for _ in range(REFINEMENTS):
        codes = torch.einsum("nmd,mkd->nmk", x, words).argmax(dim=2)
        sums = torch.einsum("nmk,nmd->mkd", functional.one_hot(codes, K).to(x.dtype), x)
        words = functional.normalize(torch.where(sums == 0, words, sums), dim=-1)
    return words
