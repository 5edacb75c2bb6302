"""Masks that cannot change: their eligible codes have sorted segments of their own."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gpq.scan.known import KnownMasks
from gpq.scan.native.segment import Segment
from gpq.scan.native.snapshot import Snapshot


class Masks:
    """An eligible 48-bit code takes about ten bytes, and on the first search a quarter of a
    microsecond."""

    def __init__(self) -> None:
        self._known: KnownMasks[Segment] = KnownMasks()

    def eligible(self, snapshot: Snapshot, mask: NDArray[np.bool_]) -> Snapshot | None:
        """With segments of eligible rows alone; nothing for a mask that can be written to, or
        is a view of one."""
        segments = snapshot.segments

        def sort(n: int) -> Segment:
            start = segments[n - 1].last_row if n else 0
            return _eligible(snapshot, segments[n], start, mask)

        left = self._known.left(mask, segments, sort)
        return None if left is None else replace(snapshot, segments=left)


def _eligible(snapshot: Snapshot, segment: Segment, start: int, mask: NDArray[np.bool_]) -> Segment:
    rows = snapshot.live(start, min(segment.last_row, max(start, len(mask))))
    rows = rows[mask[rows]]
    return Segment(segment.codes(rows), rows, segment.M, segment.last_row, find_rows=False)
