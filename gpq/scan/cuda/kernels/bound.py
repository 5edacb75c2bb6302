"""Bounds the scores of codes for many queries on the tensor cores, to leave out most codes.

A code is a one-hot row of M·16 bytes. Its product with a query's deficits max_m - LUT[m], which are
quantised to seven bits and rounded down, is a lower bound of the difference between the largest
possible score and the score of the code. The product of int8 matrices has exact int32 sums, so
that no hit is left out.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpq.scan.cuda.kernels.place import next_place

# Rows and warps of a program. Three such programs, compiled for sm_90, fit the registers of a
# multiprocessor. The sizes are not yet tuned by measurements on a GPU.
ROWS, WARPS = 64, 4
LEAST_QUERIES, MOST_QUERIES = 16, 128
LIMIT = 127  # largest sum of quantised deficits that survives
ROUNDED_DOWN = 1 - 2.0**-40
LARGEST_SCALE = 1e300


def tables(luts: Tensor, thresholds: Tensor, queries: int) -> tuple[Tensor, Tensor]:
    """Quantises the deficits of look-up tables (Q,M,16) float32 for thresholds (Q,) float32.

    A threshold of -inf means that none is known. Returns the deficits (P,queries,32) int8, low
    sub-codes first, and the limits (queries,) int32. A code whose deficits add up to more than
    the limit cannot reach the threshold. Limits from Q on are -1.
    """
    Q, M, K = luts.shape
    wide = luts.double()
    largest = wide.amax(dim=2)
    margin = M * 2.0**-23 * wide.abs().amax(dim=2).sum(dim=1)  # rounding error of a float32 sum
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
    """Returns the one-hot rows (256,32) int8 of each byte's two sub-codes, the low one first.

    Looking the rows up takes few instructions; computing them would take most of a program.
    """
    byte = torch.arange(256)
    codes = torch.stack([byte & 15, byte >> 4], dim=1)
    return torch.eye(16, dtype=torch.int8)[codes].view(256, 32).to(device)


@triton.jit
def bound_kernel(
    planes, stride, eligible, one_hots, tables, limits, survivors, counts, capacity,
    base, start, end, step, tiles,
    PLANES: tl.constexpr, ROWS: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Lists the rows whose codes may be hits. A program handles ROWS rows and QUERIES queries.

    There are ``tiles`` · QUERIES queries. The arguments are those of ``exact_kernel``, except that
    planes hold uint8. one_hots, tables and limits are results of the functions above. Writes the
    rows to survivors (Q,capacity) int32 in any order.
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
        # Loads the next plane while this one is multiplied; the last plane is loaded twice.
        byte = tl.load(planes + stride.to(tl.int64) * tl.minimum(p + 1, PLANES - 1) + column)
        sums = tl.dot(one_hot, tl.trans(table), sums, out_dtype=tl.int32)
    over = sums - tl.load(limits + query)[None, :]
    if tl.min(tl.min(over, axis=1), axis=0) <= 0:  # false in most programs
        bits = tl.load(eligible + column // 8).to(tl.int32)
        usable = (column < end) & (((bits >> (column % 8).to(tl.int32)) & 1) == 1)
        left = (over <= 0) & usable[:, None]
        place = next_place(counts + query[None, :], left, capacity)
        out = survivors + query.to(tl.int64)[None, :] * capacity + place
        row = tl.broadcast_to((base + column).to(tl.int32)[:, None], (ROWS, QUERIES))
        tl.store(out, row, mask=left & (place < capacity))
