"""Sorted codes that never change, in the memory of the C++ kernel."""

import ctypes
import weakref
from ctypes import c_void_p

import numpy as np
from numpy.typing import NDArray

from gpq.scan.native.library import kernel


class Segment:
    """Codes (n,ceil(M/2)) uint8 of ascending rows (n,) uint32, all below ``last_row``.

    ``find_rows``: whether ``codes`` can find the codes of rows, which takes ceil(M/2) bytes for
    each row from the first to the last.
    Raises MemoryError.
    """

    def __init__(
        self,
        packed: NDArray[np.uint8],
        rows: NDArray[np.uint32],
        M: int,
        last_row: int,
        *,
        find_rows: bool = True,
    ) -> None:
        packed, rows = np.ascontiguousarray(packed), np.ascontiguousarray(rows)
        self.pointer = c_void_p(
            kernel().gpq_segment_build(
                packed.ctypes.data, rows.ctypes.data, len(rows), M, find_rows
            )
        )
        if not self.pointer:
            raise MemoryError(f"too little memory to sort {len(rows)} codes")
        kernel().gpq_trim()
        # Not freed at exit, because threads may still search then.
        weakref.finalize(self, kernel().gpq_segment_free, self.pointer).atexit = False
        self.M = M
        self.size, self.last_row = len(rows), last_row

    @property
    def bytes(self) -> int:
        """The memory of the segment, in bytes."""
        return int(kernel().gpq_segment_bytes(self.pointer))

    def codes(self, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Returns the codes of rows that were not removed when the segment was built."""
        rows = np.ascontiguousarray(rows)
        packed = np.empty((len(rows), (self.M + 1) // 2), dtype=np.uint8)
        kernel().gpq_segment_codes_of(
            self.pointer, rows.ctypes.data, ctypes.c_size_t(len(rows)), packed.ctypes.data
        )
        return packed
