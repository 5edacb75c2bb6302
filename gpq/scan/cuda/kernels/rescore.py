"""Computes the exact scores of the survivors of ``bound``, with the same sums as ``exact``."""

import triton
import triton.language as tl

from gpq.scan.cuda.kernels.key import key_of

SLOTS = 256  # survivors of a program


@triton.jit
def rescore_kernel(
    planes, stride, luts, thresholds, survivors, counts, keys, capacity, base, end,
    M: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Writes the keys of survivors that are hits. A program handles SLOTS of one query.

    Each survivor (Q,capacity) in this slab, whose rows are base to base + end, has its key written
    to the same slot of keys (Q,capacity) if the key is at least thresholds (Q,).
    """
    query = tl.program_id(1)
    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    count = tl.minimum(tl.load(counts + query), capacity)
    if tl.program_id(0) * SLOTS < count:
        places = query.to(tl.int64) * capacity + slot
        row = tl.load(survivors + places, mask=slot < count, other=-1).to(tl.int64)
        column = row - base
        mine = (column >= 0) & (column < end)
        score = tl.zeros((SLOTS,), tl.float32)
        for m in tl.static_range(M):
            byte = tl.load(planes + stride.to(tl.int64) * (m // 2) + column, mask=mine, other=0).to(
                tl.int32
            )
            score += tl.load(luts + (query * M + m) * 16 + ((byte >> (m % 2 * 4)) & 15))
        key = key_of(score, row)
        tl.store(keys + places, key, mask=mine & (key >= tl.load(thresholds + query)))
