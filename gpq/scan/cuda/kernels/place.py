"""Assigns places in the buffer of each query to the codes that a kernel finds."""

import triton
import triton.language as tl


@triton.jit
def next_place(counts, found, capacity):
    """Returns a place int32 for each true element of found (R,Q) or (Q,R).

    A place of ``capacity`` or more means that the buffer is full.
    counts: pointers (1,Q) or (Q,1) to an int32 for each query, which grows by one for each found
    element. It stops growing soon after it exceeds ``capacity``: callers need not know by how much.

    Each element does an atomic addition of its own, because up to Triton 3.4 only the thread that
    does an atomic operation receives its result.
    """
    some = found & (tl.load(counts) <= capacity)
    place = tl.atomic_add(tl.broadcast_to(counts, found.shape), 1, mask=some, sem="relaxed")
    return tl.where(some, place, capacity)
