"""Where what was found goes: in a buffer of so many places for each query."""

import triton
import triton.language as tl


@triton.jit
def next_place(counts, found, capacity):
    """counts: pointers to the int32 of each query, (1,Q) or (Q,1), which grow by one for each
    element of found (R,Q) or (Q,R) that is true. Returns places int32; from ``capacity`` on there
    is none.

    Not one addition for all of a query: up to Triton 3.4 only the thread that does an atomic
    operation has its result. Where more came than there is room for, it is enough to know that.
    """
    some = found & (tl.load(counts) <= capacity)
    place = tl.atomic_add(tl.broadcast_to(counts, found.shape), 1, mask=some, sem="relaxed")
    return tl.where(some, place, capacity)
