"""Computes the scores of all codes for a few queries and collects the hits.

score(q, n) = Σ_m LUT[q, m, code(n, m)], float32, in order of m. Each sub-code takes one look-up in
shared memory. Each byte of a code is read once for all queries of a program.
"""

import triton
import triton.language as tl

from gpq.scan.cuda.kernels.key import key_of
from gpq.scan.cuda.kernels.place import next_place

ROWS = 2048  # rows of a program
MOST_QUERIES = 4  # queries of a program, at most
WARPS = 4  # warps of a program for each of its queries: a thread has 16 scores


@triton.jit
def exact_kernel(
    planes, stride, eligible, luts, thresholds, least, after, keys, counts, capacity,
    base, start, end, step, queries, tiles,
    M: tl.constexpr, ROWS: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Collects the keys of hits. A program handles ROWS rows of a slab and QUERIES queries.

    There are at most ``tiles`` · QUERIES queries.
    planes: (P,stride), one byte for each code, read as int32; row n is column n - base. The planes
    have bytes up to a multiple of ROWS.
    eligible: one bit for each column. luts: (Q,M,16) float32.
    start, end: the first column, a multiple of ROWS, and the end of the columns to search, of which
    every ``step``-th block of ROWS is searched.
    A hit has a key of at least thresholds (Q,) and below ``after``; least (Q,) has the scores of
    the thresholds. Keys are written to keys (Q,capacity) at the places that ``next_place`` returns
    for counts (tiles · QUERIES,).
    """
    program = tl.program_id(0)
    line = tl.arange(0, 4 * QUERIES)  # of scores: one query and every fourth row
    query = program % tiles * QUERIES + line // 4
    first = start + (program // tiles).to(tl.int64) * step * ROWS
    word = tl.arange(0, ROWS // 4)
    pointers = planes + first // 4 + word
    entry = tl.arange(0, 16 * QUERIES)
    entry_query = program % tiles * QUERIES + entry // 16
    valid = entry_query < queries
    table = luts + entry_query * M * 16 + entry % 16
    shift = (line % 4 * 8)[:, None]
    offset = (line // 4 * 16)[:, None]
    score = tl.zeros((QUERIES * ROWS,), tl.float32)
    words = tl.zeros((ROWS // 4,), tl.int32)
    for m in tl.static_range(M):
        words = words >> 4 if m % 2 else tl.load(pointers + stride.to(tl.int64) * (m // 2))
        code = (words[None, :] >> shift) & 15
        entries = tl.load(table + m * 16, mask=valid, other=0.0)
        # Triton gathers from one dimension in shared memory, from more by a chain of selects.
        score += tl.gather(entries, tl.reshape(code + offset, (QUERIES * ROWS,)), axis=0)
    score = tl.reshape(score, (4 * QUERIES, ROWS // 4))
    lowest = tl.load(least + query, mask=query < queries, other=float("inf"))
    reached = score >= lowest[:, None]
    if tl.max(tl.max(reached.to(tl.int32), axis=1), axis=0) > 0:  # true in few programs
        column = first + word[None, :] * 4 + (line % 4)[:, None]
        bits = tl.load(eligible + column // 8).to(tl.int32)
        key = key_of(score, base + column)
        threshold = tl.load(thresholds + query, mask=query < queries, other=0)
        hit = reached & (column < end) & (((bits >> (column % 8).to(tl.int32)) & 1) == 1)
        hit = hit & (key >= threshold[:, None]) & (key < after)
        place = next_place(counts + query[:, None], hit, capacity)
        out = keys + query.to(tl.int64)[:, None] * capacity + place
        tl.store(out, key, mask=hit & (place < capacity))
