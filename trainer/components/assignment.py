"""Unit sub-vectors and their soft assignment to codewords, with gradients (paper, section 3.1)."""

import torch
import torch.nn.functional as functional
from torch import Tensor

ALPHA = 20.0  # soft-assignment scale
COINCIDENT_COSINE = 0.999  # codewords nearer to each other than this count as one


def intra_normalise(features: Tensor, codebooks: int) -> Tensor:
    """Splits features (B,D) into sub-vectors (B,M,d) of unit length."""
    return functional.normalize(features.view(*features.shape[:-1], codebooks, -1), dim=-1)


def soft_assign(x: Tensor, words: Tensor, alpha: float = ALPHA) -> Tensor:
    """Returns the intra-normalised soft assignment s_m(x; alpha, words) of equation 1.

    x (B,M,d) unit sub-vectors, words (M,L,d) unit vectors -> (B,M,d) unit sub-vectors: the mean
    of the words weighted by softmax(alpha · cosine).
    """
    weights = torch.softmax(alpha * torch.einsum("bmd,mld->bml", x, words), dim=-1)
    return functional.normalize(torch.einsum("bml,mld->bmd", weights, words), dim=-1)


def separate(Z: Tensor) -> Tensor:
    """Returns the codewords Z' (M,K,d) without coincident ones.

    Prototypes may draw several codewords to one place. Which of them an image gets would then
    depend on rounding. The first of them stays. Each of the others moves to the coordinate axis,
    in either direction, that is furthest from all codewords.
    """
    axes = torch.cat([torch.eye(Z.shape[2]), -torch.eye(Z.shape[2])])
    separated = Z.clone()
    for words in separated:
        kept: list[int] = []
        merged: list[int] = []
        for k in range(len(words)):
            same = len(kept) and bool((words[kept] @ words[k]).amax() > COINCIDENT_COSINE)
            (merged if same else kept).append(k)
        for k in merged:
            words[k] = axes[(axes @ words[kept].T).amax(dim=1).argmin()]
            kept.append(k)
    return separated
