"""Stores the seq of every row compactly: one byte each if hardly any seq is missing, else more."""

import numpy as np
from numpy.typing import NDArray

CHUNK = 256  # rows that share a base
SLICE = 1 << 16  # rows appended at a time, to save memory
WIDTHS = (np.uint8, np.uint16, np.uint32, np.int64)


class Seqs:
    """Ascending seqs: a base for every CHUNK rows, and the number of seqs skipped since, by row.

    Only one thread may append at a time. Readers need no lock, because appended rows never change.
    """

    def __init__(self, seqs: NDArray[np.int64]) -> None:
        self._count = 0
        self._bases = np.empty(0, dtype=np.int64)
        self._missing: NDArray[np.integer] = np.empty(0, dtype=WIDTHS[0])
        self.append(seqs)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the seqs (n,) int64 of rows (n,)."""
        found: NDArray[np.int64] = self._bases[rows // CHUNK] + rows % CHUNK + self._missing[rows]
        return found

    @property
    def newest(self) -> int:
        """The largest seq; 0 if there are no rows."""
        return int(self[np.array([self._count - 1])][0]) if self._count else 0

    @property
    def bytes(self) -> int:
        """Memory used, in bytes."""
        return self._bases.nbytes + self._missing.nbytes

    def append(self, seqs: NDArray[np.int64]) -> None:
        """Appends rows with seqs (n,) int64, which must ascend and be larger than ``newest``."""
        self._reserve(self._count + len(seqs))
        for first in range(0, len(seqs), SLICE):
            self._append(seqs[first : first + SLICE])

    def cut(self, count: int) -> None:
        """Removes all rows after the first ``count``. Nobody may have read the removed ones."""
        self._count = count

    def _append(self, seqs: NDArray[np.int64]) -> None:
        first, last = self._count, self._count + len(seqs)
        rows = np.arange(first, last)
        starts = rows[rows % CHUNK == 0]
        self._bases[starts // CHUNK] = seqs[starts - first]
        missing = seqs - self._bases[rows // CHUNK] - rows % CHUNK
        largest = missing.max()
        if largest > np.iinfo(self._missing.dtype).max:
            width = next(w for w in WIDTHS if largest <= np.iinfo(w).max)
            self._missing = self._missing.astype(width)
        self._missing[first:last] = missing
        self._count = last

    def rows_up_to(self, seq: int) -> int:
        """Returns the number of rows whose seq is at most ``seq``."""
        count = self._count
        chunk = int(np.searchsorted(self._bases[: -(-count // CHUNK)], seq, side="right")) - 1
        if chunk < 0:
            return 0
        first = chunk * CHUNK
        own = self[np.arange(first, min(first + CHUNK, count))]
        return first + int(np.searchsorted(own, seq, side="right"))

    def rows_of(self, seqs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the rows of seqs, given in any order; a seq that no row has is skipped."""
        chunks = np.searchsorted(self._bases[: -(-self._count // CHUNK)], seqs, side="right") - 1
        rows = []
        for seq, chunk in zip(seqs.tolist(), chunks.tolist(), strict=True):
            if chunk < 0:
                continue
            first = chunk * CHUNK
            within = self._missing[first : min(first + CHUNK, self._count)].astype(np.int64)
            within += np.arange(len(within))
            offset = seq - int(self._bases[chunk])
            place = int(np.searchsorted(within, offset))
            if place < len(within) and within[place] == offset:
                rows.append(first + place)
        return np.array(rows, dtype=np.int64)

    def _reserve(self, rows: int) -> None:
        if rows <= len(self._missing):
            return
        # An eighth more than before balances the memory of spare rows against the cost of copies.
        room = max(rows, len(self._missing) * 9 // 8, CHUNK)
        bases = np.empty(-(-room // CHUNK), dtype=np.int64)
        missing = np.empty(room, dtype=self._missing.dtype)
        bases[: len(self._bases)] = self._bases
        missing[: self._count] = self._missing[: self._count]
        self._bases, self._missing = bases, missing
