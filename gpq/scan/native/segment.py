"""Sorted codes that no longer change, in the kernel's memory."""

import ctypes
import weakref
from ctypes import c_void_p

import numpy as np
from numpy.typing import NDArray

from gpq.scan.native.library import kernel


class Segment:
    """Codes (n,ceil(M/2)) uint8 of rows (n,) uint32, ascending, all below ``last_row``.

    find_rows: at four bytes for each row from the first to the last, for ``codes``.
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
            raise MemoryError(f"no memory to sort {len(rows)} codes")
        kernel().gpq_trim()
        # Not at exit: threads may still search then.
        weakref.finalize(self, kernel().gpq_segment_free, self.pointer).atexit = False
        self.M = M
        self.size, self.last_row = len(rows), last_row

    @property
    def bytes(self) -> int:
        """Of memory."""
        return int(kernel().gpq_segment_bytes(self.pointer))

    def codes(self, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Of rows that were not removed when it was built."""
        rows = np.ascontiguousarray(rows)
        packed = np.empty((len(rows), (self.M + 1) // 2), dtype=np.uint8)
        kernel().gpq_segment_codes_of(
            self.pointer, rows.ctypes.data, ctypes.c_size_t(len(rows)), packed.ctypes.data
        )
        return packed
