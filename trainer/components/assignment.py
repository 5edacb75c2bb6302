"""Unit sub-vectors and their soft assignment to codewords, with gradients (paper, section 3.1)."""

import torch
import torch.nn.functional as functional
from torch import Tensor

ALPHA = 20.0  # soft-assignment scale


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
