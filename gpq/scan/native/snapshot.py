"""An immutable view of the codes for searches: sorted segments, tails and removed rows."""

import ctypes
from ctypes import c_void_p
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gpq.scan.native import library
from gpq.scan.native.segment import Segment
from gpq.scan.native.tail import Tail

WORD = 64
CHUNK = 1 << 16  # rows handled at a time, because their numbers take much memory


@dataclass(frozen=True)
class NativeSnapshot:
    """All rows in order: those of the segments, then those of one or more tails.

    ``removed``: uint64 words with one bit for each row, which is 1 if the row is removed. Rows that
    are not yet added also have a bit.
    """

    segments: tuple[Segment, ...]
    tails: tuple[Tail, ...]
    removed: NDArray[np.uint64]
    removed_count: int
    pointers: ctypes.Array[c_void_p] = field(init=False, repr=False)
    tail_array: ctypes.Array[library.TailStruct] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pointers = (c_void_p * len(self.segments))(*(s.pointer for s in self.segments))
        tails = (library.TailStruct * len(self.tails))(
            *(library.TailStruct(t.blocks.ctypes.data, t.first_row, t.count) for t in self.tails)
        )
        object.__setattr__(self, "pointers", pointers)
        object.__setattr__(self, "tail_array", tails)

    @property
    def count(self) -> int:
        """The number of rows, including removed ones."""
        return self.tails[-1].last_row

    @property
    def held(self) -> int:
        """The number of codes in memory, including those of removed rows."""
        return sum(s.size for s in self.segments) + sum(t.count for t in self.tails)

    def live(self, first: int, last: int) -> NDArray[np.uint32]:
        """Returns the rows from first to last that are not removed."""
        parts = [np.empty(0, dtype=np.uint32)]
        for start in range(first, last, CHUNK):
            bits = self._removed_bits(start, min(start + CHUNK, last))
            parts.append((np.flatnonzero(bits == 0) + start).astype(np.uint32))
        return np.concatenate(parts)

    def live_count(self, first: int, last: int) -> int:
        """Returns the number of rows from first to last that are not removed."""
        return last - first - int(np.count_nonzero(self._removed_bits(first, last)))

    def _removed_bits(self, first: int, last: int) -> NDArray[np.uint8]:
        start = first // WORD
        words = self.removed[start : last // WORD + 1]
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        return bits[first - start * WORD : last - start * WORD]

    def codes(self, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Returns the codes (n,ceil(M/2)) of ascending rows (n,) that are not removed."""
        packed = np.empty((len(rows), self.tails[0].blocks.shape[1]), dtype=np.uint8)
        holders: list[Segment | Tail] = [*self.segments, *self.tails]
        first = 0
        for holder in holders:
            last = int(np.searchsorted(rows, np.uint32(holder.last_row)))
            if last > first:
                packed[first:last] = holder.codes(rows[first:last])
            first = last
        return packed
