"""Sorted codes that no longer change, in the kernel's memory."""

import ctypes
import weakref
from ctypes import c_void_p

import numpy as np
from numpy.typing import NDArray

from gpq.scan.native.library import kernel


class Segment:
    """Codes (n,ceil(M/2)) uint8 of rows (n,) uint32, ascending, all below ``last_row``.

    Raises MemoryError.
    """

    def __init__(
        self, packed: NDArray[np.uint8], rows: NDArray[np.uint32], M: int, last_row: int
    ) -> None:
        packed, rows = np.ascontiguousarray(packed), np.ascontiguousarray(rows)
        self.pointer = c_void_p(
            kernel().gpq_segment_build(packed.ctypes.data, rows.ctypes.data, len(rows), M)
        )
        if not self.pointer:
            raise MemoryError(f"no memory to sort {len(rows)} codes")
        # Not at exit: threads may still search then.
        weakref.finalize(self, kernel().gpq_segment_free, self.pointer).atexit = False
        self.width = (M + 1) // 2
        self.size, self.last_row = len(rows), last_row

    @property
    def bytes(self) -> int:
        """Of memory."""
        return int(kernel().gpq_segment_bytes(self.pointer))

    def eligible(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint64], int]:
        """Of positions, 64 a block, a bit where a row is eligible; and how many rows are."""
        words = np.empty(kernel().gpq_segment_blocks(self.pointer), dtype=np.uint64)
        rows = kernel().gpq_segment_list(
            self.pointer, mask.ctypes.data, len(mask), words.ctypes.data
        )
        return words, int(rows)

    def codes(self, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Of rows that were not removed when it was built."""
        rows = np.ascontiguousarray(rows)
        packed = np.empty((len(rows), self.width), dtype=np.uint8)
        kernel().gpq_segment_codes_of(
            self.pointer, rows.ctypes.data, ctypes.c_size_t(len(rows)), packed.ctypes.data
        )
        return packed
