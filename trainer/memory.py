"""What the C library does with memory that a step has freed."""

import ctypes

# <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER = -1
PAD_BYTES = 1 << 30


def keep_freed() -> None:
    """Have glibc keep freed memory for the next step; elsewhere nothing happens.

    By default it maps every large tensor anew and returns it to the system, a page fault
    for each 4 KiB: a third of the time of a training on the CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, PAD_BYTES)):
        mallopt(option, value)
