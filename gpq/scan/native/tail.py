"""Codes as they were added, in order of their rows."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
ROWS = 1 << 16  # of a tail; it is sorted into a segment when it is full


@dataclass(frozen=True)
class Tail:
    """blocks (ROWS/64,ceil(M/2),64) uint8: the first ``count`` codes never change. A larger
    count over the same blocks is the tail with more codes."""

    blocks: NDArray[np.uint8] = field(repr=False)
    first_row: int
    count: int

    @classmethod
    def empty(cls, first_row: int, M: int) -> "Tail":
        return cls(np.zeros((ROWS // BLOCK, (M + 1) // 2, BLOCK), np.uint8), first_row, 0)

    @property
    def last_row(self) -> int:
        return self.first_row + self.count

    @property
    def full(self) -> bool:
        return self.count == ROWS

    def with_codes(self, packed: NDArray[np.uint8]) -> "Tail":
        """At most what there is room for; one thread at a time."""
        places = np.arange(self.count, self.count + len(packed))
        self.blocks[places // BLOCK, :, places % BLOCK] = packed
        return Tail(self.blocks, self.first_row, self.count + len(packed))

    def codes(self, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
        places = rows - np.uint32(self.first_row)
        return self.blocks[places // BLOCK, :, places % BLOCK]
