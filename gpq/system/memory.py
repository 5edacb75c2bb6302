"""Configures how glibc handles freed memory; has no effect with another C library."""

import ctypes
from functools import cache

# <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8
NEVER = -1
PAD_BYTES = 1 << 30
LARGE_BYTES = 4 << 20  # blocks of large images are at least this large
LARGEST_KEPT_BYTES = 32 << 20  # glibc ignores larger thresholds
KEPT_BYTES = 256 << 20  # freed memory that each thread keeps


def keep_freed() -> None:
    """Keeps all freed memory for the next step of a training.

    By default glibc maps every large tensor again and then returns it to the system. The page
    faults, one for each 4 KiB, take a third of the time of a training on the CPU.
    """
    _set(M_MMAP_MAX, 0)
    _set(M_TRIM_THRESHOLD, NEVER)
    _set(M_TOP_PAD, PAD_BYTES)


def keep_tensors() -> None:
    """Keeps freed blocks of up to LARGEST_KEPT_BYTES for the next batch of images.

    The blocks of large images are kept too, until ``give_back`` is called.
    """
    _set(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
    _set(M_TRIM_THRESHOLD, KEPT_BYTES)


def share_one_arena() -> None:
    """Lets all threads allocate from one arena; call it before they start.

    ``give_back`` does not return the last free block of the other arenas, which each have up to
    64 MiB.
    """
    _set(M_ARENA_MAX, 1)


def return_large_images() -> None:
    """Returns the memory of large images to the system as soon as it is freed.

    Otherwise every thread that decodes images would keep that memory.
    """
    _set(M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back() -> None:
    """Returns all memory that is free now to the system."""
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
