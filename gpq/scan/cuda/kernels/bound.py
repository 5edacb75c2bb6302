"""Which codes may be hits of many queries: an upper bound of the score, on the tensor cores.

A code is a one-hot row of M·16 bytes; times a query's deficits max_m - LUT[m], quantised to seven
bits and rounded down, it is the least that its score lies below the largest there is. That is a
matrix product of int8 with int32 sums: exact, so what is left out cannot be a hit.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpq.scan.cuda.kernels.place import next_place

# Of a program: so that three of them fit a multiprocessor's registers, by what is compiled for
# sm_90; not yet chosen by measuring on a card.
ROWS, WARPS = 64, 4
LEAST_QUERIES, MOST_QUERIES = 16, 128
LIMIT = 127  # largest sum of quantised deficits that survives
ROUNDED_DOWN = 1 - 2.0**-40
LARGEST_SCALE = 1e300


def tables(luts: Tensor, thresholds: Tensor, queries: int) -> tuple[Tensor, Tensor]:
    """luts (Q,M,16) float32, thresholds (Q,) float32, -inf where none is known -> quantised
    deficits (P,queries,32) int8, low sub-codes first, and limits (queries,) int32, -1 where
    there is no query."""
    Q, M, K = luts.shape
    wide = luts.double()
    largest = wide.amax(dim=2)
    margin = M * 2.0**-23 * wide.abs().amax(dim=2).sum(dim=1)  # of a sum in float32
    limit = largest.sum(dim=1) - thresholds.double() + margin
    scale = torch.where(limit > 0, LIMIT / limit, 0).clamp(max=LARGEST_SCALE) * ROUNDED_DOWN
    deficits = (largest[:, :, None] - wide) * scale[:, None, None]
    quantised = torch.zeros((queries, M + M % 2, K), dtype=torch.int8, device=luts.device)
    quantised[:Q, :M] = deficits.clamp(max=LIMIT).floor().to(torch.int8)
    limits = torch.full((queries,), -1, dtype=torch.int32, device=luts.device)
    limits[:Q] = LIMIT
    return quantised.view(queries, -1, 2 * K).transpose(0, 1).contiguous(), limits


@cache
def one_hots(device: torch.device) -> Tensor:
    """(256,32) int8: of each byte its two sub-codes as rows of 16, the low one first. Made by
    a program they would be most of its instructions; looked up they are few."""
    byte = torch.arange(256)
    codes = torch.stack([byte & 15, byte >> 4], dim=1)
    return torch.eye(16, dtype=torch.int8)[codes].view(256, 32).to(device)


@triton.jit
def bound_kernel(
    planes, stride, eligible, one_hots, tables, limits, survivors, counts, capacity,
    base, start, end, step, tiles,
    PLANES: tl.constexpr, ROWS: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """A program: ROWS rows of a slab, QUERIES queries, of which there are ``tiles`` times as many.

    As in ``exact_kernel``, but planes are of bytes; survivors (Q,capacity) int32 are rows, in no
    order.
    """
    program = tl.program_id(0)
    query = program % tiles * QUERIES + tl.arange(0, QUERIES)
    column = start + (program // tiles).to(tl.int64) * step * ROWS + tl.arange(0, ROWS)
    entry = tl.arange(0, 32)
    sums = tl.zeros((ROWS, QUERIES), tl.int32)
    byte = tl.load(planes + column)
    for p in tl.range(PLANES, num_stages=1):
        one_hot = tl.load(one_hots + byte.to(tl.int32)[:, None] * 32 + entry[None, :])
        table = tl.load(tables + (p * tiles * QUERIES + query[:, None]) * 32 + entry[None, :])
        # Of the next plane, while this one is multiplied; of the last once more.
        byte = tl.load(planes + stride.to(tl.int64) * tl.minimum(p + 1, PLANES - 1) + column)
        sums = tl.dot(one_hot, tl.trans(table), sums, out_dtype=tl.int32)
    over = sums - tl.load(limits + query)[None, :]
    if tl.min(tl.min(over, axis=1), axis=0) <= 0:  # of most programs nothing is left
        bits = tl.load(eligible + column // 8).to(tl.int32)
        usable = (column < end) & (((bits >> (column % 8).to(tl.int32)) & 1) == 1)
        left = (over <= 0) & usable[:, None]
        place = next_place(counts + query[None, :], left, capacity)
        out = survivors + query.to(tl.int64)[None, :] * capacity + place
        row = tl.broadcast_to((base + column).to(tl.int32)[:, None], (ROWS, QUERIES))
        tl.store(out, row, mask=left & (place < capacity))
