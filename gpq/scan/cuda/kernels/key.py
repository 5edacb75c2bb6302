"""Represents a hit as one int64 key; the larger key is the earlier hit."""

import torch
import triton
import triton.language as tl
from torch import Tensor

NONE = torch.iinfo(torch.int64).min  # the key of a missing hit, below all others
MOST_ROWS = 2**31 - 1


@triton.jit
def key_of(score, row):
    """Returns the keys int64 of scores float32 and rows below 2³¹.

    The upper half has the bits of the score, transformed so that they compare like the floats; the
    lower half is 2³¹ - 1 - row. A score is never -0, because it is a sum that starts at +0.
    """
    bits = score.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) + (0x7FFFFFFF - row)


def key(score: float, row: int) -> int:
    """Returns the key of any score and row, as ``key_of`` does.

    The key of a NaN score is NONE, which no hit follows.
    """
    if score != score:
        return NONE
    bits = int(torch.tensor(score + 0.0, dtype=torch.float32).view(torch.int32))
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered << 32) + MOST_ROWS - min(max(row, -1), MOST_ROWS)


def scores(keys: Tensor) -> Tensor:
    """Returns the scores float32 of keys; the score of NONE is -inf."""
    ordered = keys >> 32
    bits = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(torch.int32)
    return torch.where(keys == NONE, -torch.inf, bits.view(torch.float32))


def rows(keys: Tensor) -> Tensor:
    """Returns the rows int64 of keys; the row of NONE is -1."""
    return torch.where(keys == NONE, -1, MOST_ROWS - (keys & 0xFFFFFFFF))
