"""Unsorted codes in the order of their rows, which is the order in which they were added."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
ROWS = 1 << 16  # rows of a full tail, which is then sorted into a segment


@dataclass(frozen=True)
class Tail:
    """The first ``count`` codes in blocks (ROWS/64,ceil(M/2),64) uint8; they never change.

    A tail with more codes is a new object with a larger count over the same blocks.
    """

    blocks: NDArray[np.uint8] = field(repr=False)
    first_row: int
    count: int

    @classmethod
    def empty(cls, first_row: int, M: int) -> "Tail":
        """Returns a tail without codes whose first row will be ``first_row``."""
        return cls(np.zeros((ROWS // BLOCK, (M + 1) // 2, BLOCK), np.uint8), first_row, 0)

    @property
    def last_row(self) -> int:
        return self.first_row + self.count

    @property
    def full(self) -> bool:
        return self.count == ROWS

    def with_codes(self, packed: NDArray[np.uint8]) -> "Tail":
        """Returns the tail with further codes, for which there must be room.

        Only one thread may call it at a time.
        """
        places = np.arange(self.count, self.count + len(packed))
        self.blocks[places // BLOCK, :, places % BLOCK] = packed
        return Tail(self.blocks, self.first_row, self.count + len(packed))

    def codes(self, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Returns the codes (n,ceil(M/2)) uint8 of rows (n,)."""
        places = rows - np.uint32(self.first_row)
        return self.blocks[places // BLOCK, :, places % BLOCK]
