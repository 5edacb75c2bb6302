"""Encodes features with the PQ table Z and makes look-up tables (paper, sections 3.1 and 3.2).

Features and codewords are intra-normalised: every d-dimensional sub-vector has unit length, so
that the inner product of two sub-vectors is their cosine.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

K = 16  # codewords in a codebook: 4 bits, so that a table of them fits a SIMD register
LIKE = 0.75  # mean cosine with a class above which a query is expanded towards it
SURE = 32.0  # scale of the softmax over classes


def intra_normalise(features: Tensor, codebooks: int) -> Tensor:
    """Splits features (B,D) into sub-vectors (B,M,d) of unit length."""
    return functional.normalize(features.view(*features.shape[:-1], codebooks, -1), dim=-1)


def pack(codes: Tensor) -> Tensor:
    """Packs codes (N,M) uint8 below 16 to (N,ceil(M/2)) uint8; the low nibble is the even m."""
    if codes.shape[1] % 2:
        codes = functional.pad(codes, (0, 1))
    return codes[:, 0::2] | (codes[:, 1::2] << 4)


def unpack(packed: Tensor, codebooks: int) -> Tensor:
    """Unpacks codes (N,ceil(M/2)) uint8 to (N,M) uint8, the inverse of ``pack``."""
    nibbles = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
    return nibbles[:, :codebooks]


@dataclass(frozen=True)
class Codebook:
    """The codewords of a model and the means that its searches use.

    ``Z``: unit codewords (M,K,d) float32; a sub-code is the number of the nearest codeword.
    ``means``: (M,K,d) float32, of at most length 1: the mean of the sub-vectors that have a
    sub-code (``means_of``). A search compares queries with them, or with Z if they are None.
    ``classes``: (M,L,d) float32, of at most length 1: the mean sub-vectors of L classes, by which
    ``expanded`` expands a query. If they are None, queries are not expanded.
    """

    Z: Tensor
    means: Tensor | None = None
    classes: Tensor | None = None

    @property
    def M(self) -> int:
        return self.Z.shape[0]

    @property
    def bits(self) -> int:
        return 4 * self.M

    def first(self, M: int) -> "Codebook":
        """Returns the first M codebooks."""
        return self._each(lambda tensor: tensor[:M])

    def to(self, device: torch.device | str) -> "Codebook":
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Codebook":
        more = (None if t is None else change(t) for t in (self.means, self.classes))
        return Codebook(change(self.Z), *more)

    def encode(self, features: Tensor) -> Tensor:
        """Encodes features (B,D) float32 to the nearest codewords (B,M) uint8."""
        return self._cosines(features).argmax(dim=-1).to(torch.uint8)

    def margin(self, features: Tensor) -> Tensor:
        """Returns how far the codes of features (B,D) are from any other code: (B,) float32.

        The margin is the smallest difference, over all sub-vectors, between the cosines with the
        nearest and with the second nearest codeword.
        """
        best = self._cosines(features).topk(2, dim=-1).values
        return (best[..., 0] - best[..., 1]).amin(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the codewords (B,D) float32 of codes (B,M) uint8."""
        return self.Z[torch.arange(self.M, device=codes.device), codes.long()].flatten(1)

    def lut(self, features: Tensor) -> Tensor:
        """Returns look-up tables (Q,M,K) float32 of features (Q,D): expected cosines / M.

        The score of a code is the plain float32 sum of LUT[m, code_m] over m = 0…M-1 in that
        order: the expected mean cosine between the query and an image with the code.
        """
        words = self.Z if self.means is None else self.means
        x = self.expanded(intra_normalise(features, self.M))
        return torch.einsum("bmd,mkd->bmk", x, words) / self.M

    def expanded(self, x: Tensor) -> Tensor:
        """Moves sub-vectors (Q,M,d) of queries halfway to the means of the classes they resemble.

        Query expansion (Chum et al., ICCV 2007) by class means: x + ½ Σ_c p_c (c - x). p is the
        softmax of SURE times the mean cosine with each class and, for none of them, SURE times
        LIKE. A query that resembles no class hardly changes.
        """
        if self.classes is None:
            return x
        unit = functional.normalize(self.classes, dim=-1)
        likeness = torch.einsum("bmd,mld->bl", x, unit) / self.M
        none = torch.full_like(likeness[:, :1], LIKE)
        p = torch.softmax(SURE * torch.cat([likeness, none], dim=1), dim=1)[:, :-1]
        towards = torch.einsum("bl,mld->bmd", p, self.classes)
        return x + (towards - p.sum(dim=1)[:, None, None] * x) / 2

    def means_of(self, features: Tensor) -> Tensor:
        """Returns the mean (M,K,d) float32 of the sub-vectors of features (N,D) with each sub-code.

        The codeword itself counts as one of the sub-vectors. x · mean is the mean of x · y over
        the sub-vectors y that have the sub-code: their expected cosine with a query's x (the
        conditional mean: Jégou et al., PAMI 2011, section 2).
        """
        x = intra_normalise(features, self.M)
        sums, counts = self.Z.clone(), torch.ones_like(self.Z[:, :, 0])
        rows = torch.arange(self.M, device=x.device)
        codes = self.encode(features).long()
        for part, code in zip(torch.split(x, 4096), torch.split(codes, 4096), strict=True):
            at = (rows.expand_as(code), code)
            sums.index_put_(at, part, accumulate=True)
            counts.index_put_(at, torch.ones(code.shape, device=x.device), accumulate=True)
        return sums / counts[:, :, None]

    def _cosines(self, features: Tensor) -> Tensor:
        return torch.einsum("bmd,mkd->bmk", intra_normalise(features, self.M), self.Z)
