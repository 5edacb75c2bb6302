"""The scores of all codes for a few queries, and which of them can be hits.

score(q, n) = Σ_m LUT[q, m, code(n, m)], float32, in order of m: one look-up a sub-code, in shared
memory; every byte of a code is read once for all queries of a program.
"""

import triton
import triton.language as tl

from gpq.scan.cuda.kernels.key import key_of
from gpq.scan.cuda.kernels.place import next_place

ROWS = 2048  # of a program
MOST_QUERIES = 4  # of a program
WARPS = 4  # of a program for each of its queries: a thread has 16 scores


@triton.jit
def exact_kernel(
    planes, stride, eligible, luts, thresholds, least, after, keys, counts, capacity,
    base, start, end, step, queries, tiles,
    M: tl.constexpr, ROWS: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """A program: ROWS rows of a slab, QUERIES queries, of which there are ``tiles`` times as many
    or a few less.

    planes (P,stride) int32: a byte a code, row n in column n - base; there are bytes up to a
    multiple of ROWS. eligible: a bit a column; luts (Q,M,16) float32. Rows from start, a multiple
    of ROWS, to end of the slab, ``step`` blocks of ROWS apart. Hits have keys from thresholds (Q,)
    on, the scores of which are least (Q,), and below ``after``; they go to keys (Q,capacity) by
    ``next_place`` of counts, which has an element for each query there is room for.
    """
    program = tl.program_id(0)
    line = tl.arange(0, 4 * QUERIES)  # of scores: a query, and of every four rows one
    query = program % tiles * QUERIES + line // 4
    first = start + (program // tiles).to(tl.int64) * step * ROWS
    word = tl.arange(0, ROWS // 4)
    at = planes + first // 4 + word
    entry = tl.arange(0, 16 * QUERIES)
    of_entry = program % tiles * QUERIES + entry // 16
    there = of_entry < queries
    table = luts + of_entry * M * 16 + entry % 16
    shift = (line % 4 * 8)[:, None]
    offset = (line // 4 * 16)[:, None]
    score = tl.zeros((QUERIES * ROWS,), tl.float32)
    words = tl.zeros((ROWS // 4,), tl.int32)
    for m in tl.static_range(M):
        words = words >> 4 if m % 2 else tl.load(at + stride.to(tl.int64) * (m // 2))
        code = (words[None, :] >> shift) & 15
        entries = tl.load(table + m * 16, mask=there, other=0.0)
        # A table of one dimension is looked up in shared memory, of more in a chain of selects.
        score += tl.gather(entries, tl.reshape(code + offset, (QUERIES * ROWS,)), axis=0)
    score = tl.reshape(score, (4 * QUERIES, ROWS // 4))
    lowest = tl.load(least + query, mask=query < queries, other=float("inf"))
    reached = score >= lowest[:, None]
    if tl.max(tl.max(reached.to(tl.int32), axis=1), axis=0) > 0:  # in few programs
        column = first + word[None, :] * 4 + (line % 4)[:, None]
        bits = tl.load(eligible + column // 8).to(tl.int32)
        key = key_of(score, base + column)
        threshold = tl.load(thresholds + query, mask=query < queries, other=0)
        hit = reached & (column < end) & (((bits >> (column % 8).to(tl.int32)) & 1) == 1)
        hit = hit & (key >= threshold[:, None]) & (key < after)
        place = next_place(counts + query[:, None], hit, capacity)
        out = keys + query.to(tl.int64)[:, None] * capacity + place
        tl.store(out, key, mask=hit & (place < capacity))
