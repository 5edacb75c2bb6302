"""A hit as one int64: the larger key is the earlier hit."""

import torch
import triton
import triton.language as tl
from torch import Tensor

NONE = torch.iinfo(torch.int64).min  # the key of no hit, below all others
MOST_ROWS = 2**31 - 1


@triton.jit
def key_of(score, row):
    """Scores float32 and rows, below 2³¹ -> int64: the score's bits in an order that compares
    like the floats, and below them 2³¹ - 1 - row. A score is never -0: it is a sum from +0."""
    bits = score.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) + (0x7FFFFFFF - row)


def key(score: float, row: int) -> int:
    """Of any score and row, as ``key_of`` has it; no hit is later than one whose score is NaN."""
    if score != score:
        return NONE
    bits = int(torch.tensor(score + 0.0, dtype=torch.float32).view(torch.int32))
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered << 32) + MOST_ROWS - min(max(row, -1), MOST_ROWS)


def scores(keys: Tensor) -> Tensor:
    """float32; -inf for NONE."""
    ordered = keys >> 32
    bits = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(torch.int32)
    return torch.where(keys == NONE, -torch.inf, bits.view(torch.float32))


def rows(keys: Tensor) -> Tensor:
    """int64; -1 for NONE."""
    return torch.where(keys == NONE, -1, MOST_ROWS - (keys & 0xFFFFFFFF))
