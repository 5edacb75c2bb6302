"""What the C library, where it is glibc, does with memory that was freed."""

import ctypes
from functools import cache

# <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
NEVER = -1
PAD_BYTES = 1 << 30
LARGE_BYTES = 4 << 20  # of a picture's block
LARGEST_KEPT_BYTES = 32 << 20  # more than glibc takes is ignored
KEPT_BYTES = 256 << 20  # of a thread's


def keep_freed() -> None:
    """Have all freed memory kept for the next step of a training.

    By default every large tensor is mapped anew and returned to the system, a page fault
    for each 4 KiB: a third of the time of a training on the CPU.
    """
    _set(M_MMAP_MAX, 0)
    _set(M_TRIM_THRESHOLD, NEVER)
    _set(M_TOP_PAD, PAD_BYTES)


def keep_tensors() -> None:
    """Have memory of up to LARGEST_KEPT_BYTES at once kept, for the next pictures through the
    network; that of large pictures too, until ``give_back``."""
    _set(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
    _set(M_TRIM_THRESHOLD, KEPT_BYTES)


def return_pictures() -> None:
    """Have the memory of large pictures go back to the system: it would be kept, once for every
    thread that decodes."""
    _set(M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back() -> None:
    """What is free now."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _set(option: int, value: int) -> None:
    library = _glibc()
    if library is not None:
        library.mallopt(option, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        library.mallopt, library.malloc_trim  # noqa: B018  (musl, macOS and Windows lack them)
    except (AttributeError, OSError, TypeError):
        return None
    return library
