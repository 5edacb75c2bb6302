"""The PQ table Z and everything computed with it (paper, sections 3.1 and 3.2).

Features and codewords are intra-normalised: every d-dimensional sub-vector has
unit length, so an inner product of sub-vectors is their cosine.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

K = 16  # codewords in a codebook: 4 bits, the in-register table look-up
ALPHA = 20.0  # soft-assignment scale


def intra_normalise(features: Tensor, codebooks: int) -> Tensor:
    """(B,D) -> (B,M,d), every sub-vector of unit length."""
    return functional.normalize(features.view(*features.shape[:-1], codebooks, -1), dim=-1)


def soft_assign(x: Tensor, words: Tensor, alpha: float = ALPHA) -> Tensor:
    """Soft assignment s_m(x; alpha, words), equation 1, intra-normalised.

    x (B,M,d) unit sub-vectors, words (M,L,d) unit vectors -> (B,M,d) unit
    sub-vectors: the mean of the words weighted by softmax(alpha · cosine).
    """
    weights = torch.softmax(alpha * torch.einsum("bmd,mld->bml", x, words), dim=-1)
    return functional.normalize(torch.einsum("bml,mld->bmd", weights, words), dim=-1)


def pack(codes: Tensor) -> Tensor:
    """(N,M) uint8 below 16 -> (N,ceil(M/2)) uint8, low nibble = even m."""
    if codes.shape[1] % 2:
        codes = functional.pad(codes, (0, 1))
    return codes[:, 0::2] | (codes[:, 1::2] << 4)


def unpack(packed: Tensor, codebooks: int) -> Tensor:
    """(N,ceil(M/2)) uint8 -> (N,M) uint8, the inverse of ``pack``."""
    nibbles = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
    return nibbles[:, :codebooks]


@dataclass(frozen=True)
class Codebook:
    """Z (M,K,d) float32, unit codewords: a sub-vector's code is the nearest.

    means (M,K,d) float32, no longer than 1: what stands for a code in a search, the mean of the
    sub-vectors that have it (``means_of``); the codewords themselves where there are none.
    """

    Z: Tensor
    means: Tensor | None = None

    @property
    def M(self) -> int:
        return self.Z.shape[0]

    @property
    def bits(self) -> int:
        return 4 * self.M

    def first(self, M: int) -> "Codebook":
        """The first M codebooks."""
        return Codebook(self.Z[:M], None if self.means is None else self.means[:M])

    def to(self, device: torch.device | str) -> "Codebook":
        return Codebook(self.Z.to(device), None if self.means is None else self.means.to(device))

    def encode(self, features: Tensor) -> Tensor:
        """(B,D) float32 -> (B,M) uint8, the nearest codeword of each sub-vector."""
        return self._cosines(features).argmax(dim=-1).to(torch.uint8)

    def margin(self, features: Tensor) -> Tensor:
        """(B,D) -> (B,) float32: how far, in cosine, the code is from another one."""
        best = self._cosines(features).topk(2, dim=-1).values
        return (best[..., 0] - best[..., 1]).amin(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """(B,M) uint8 -> (B,D) float32, the codewords themselves."""
        return self.Z[torch.arange(self.M, device=codes.device), codes.long()].flatten(1)

    def lut(self, features: Tensor) -> Tensor:
        """(Q,D) float32 -> (Q,M,K) float32, expected cosines divided by M.

        The score of a code is the plain float32 sum of LUT[m, code_m] over
        m = 0…M-1 in that order: the mean cosine to be expected of what has the code.
        """
        words = self.Z if self.means is None else self.means
        return torch.einsum("bmd,mkd->bmk", intra_normalise(features, self.M), words) / self.M

    def means_of(self, features: Tensor) -> Tensor:
        """(N,D) -> (M,K,d) float32: the mean sub-vector of each code, its codeword counted once.

        x · mean is the mean of x · y over the sub-vectors y that have the code: their expected
        cosine with a query's x (the conditional mean: Jégou et al., PAMI 2011, section 2).
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
