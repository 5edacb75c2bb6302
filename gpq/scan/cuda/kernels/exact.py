"""The scores of all codes for a few queries, and which of them can be hits.

score(q, n) = Σ_m LUT[q, m, code(n, m)], float32, in order of m: one look-up a sub-code, in a table
that stays in the first-level cache; every byte of a code is read once a query.
"""

import triton
import triton.language as tl

from gpq.scan.cuda.kernels.key import key_of

ROWS = 1024  # of a program


@triton.jit
def exact_kernel(
    planes, stride, eligible, luts, thresholds, after, keys, counts, capacity,
    base, start, end, step, queries,
    M: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program: ROWS rows of a slab, one query.

    planes (P,stride) uint8, row n in column n - base; eligible: a bit a column; luts (Q,M,16)
    float32. Rows from start to end of the slab, ``step`` blocks of ROWS apart. Hits have keys
    from thresholds (Q,) on and below ``after``; they go to keys (Q,capacity), and their number,
    which may be more, is added to counts (Q,).
    """
    program = tl.program_id(0)
    query = program % queries
    column = start + (program // queries).to(tl.int64) * step * ROWS + tl.arange(0, ROWS)
    inside = column < end
    score = tl.zeros((ROWS,), tl.float32)
    for m in tl.static_range(M):
        byte = tl.load(planes + stride.to(tl.int64) * (m // 2) + column, mask=inside, other=0).to(
            tl.int32
        )
        score += tl.load(luts + (query * M + m) * 16 + ((byte >> (m % 2 * 4)) & 15))
    bits = tl.load(eligible + column // 8, mask=inside, other=0).to(tl.int32)
    key = key_of(score, base + column)
    hit = inside & (((bits >> (column % 8).to(tl.int32)) & 1) == 1)
    hit = hit & (key >= tl.load(thresholds + query)) & (key < after)
    found = tl.sum(hit.to(tl.int32), axis=0)
    if found > 0:
        place = tl.atomic_add(counts + query, found) + tl.cumsum(hit.to(tl.int32), axis=0) - 1
        out = keys + query.to(tl.int64) * capacity + place
        tl.store(out, key, mask=hit & (place < capacity))
