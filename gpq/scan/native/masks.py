"""Masks for many searches: their eligible codes have sorted segments of their own."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gpq.scan.mask import Mask
from gpq.scan.mask_cache import MaskCache
from gpq.scan.native.background import Background
from gpq.scan.native.repeats import Repeats
from gpq.scan.native.segment import Segment
from gpq.scan.native.snapshot import NativeSnapshot

WORTH_KNOWING = 1 << 18  # codes


class MaskedSegments:
    """An eligible 48-bit code takes about ten bytes, and on the first search a quarter of a
    microsecond; of an array that comes again, in the background."""

    def __init__(self, snapshot: Callable[[], NativeSnapshot]) -> None:
        self._known: MaskCache[Segment] = MaskCache()
        self._repeats = Repeats()
        self._snapshot = snapshot
        self._wanted: set[Mask] = set()
        self._background = Background(self._prepare)

    def known(self, snapshot: NativeSnapshot, rows: NDArray[np.bool_]) -> Mask | None:
        """Of an array that came before, once it is prepared."""
        if snapshot.count < WORTH_KNOWING:
            return None
        mask = self._repeats.find(rows, snapshot.count)
        if mask is None or self._known.ready(mask, snapshot.segments):
            return mask
        self._wanted.add(mask)
        self._background.ask()
        return None

    def _prepare(self) -> None:
        while self._wanted:
            self.eligible(self._snapshot(), self._wanted.pop())

    def eligible(self, snapshot: NativeSnapshot, mask: Mask) -> NativeSnapshot:
        """With segments of eligible rows alone."""
        segments = snapshot.segments

        def sort(n: int) -> Segment:
            start = segments[n - 1].last_row if n else 0
            return _eligible(snapshot, segments[n], start, mask.rows)

        return replace(snapshot, segments=self._known.left(mask, segments, sort))


def _eligible(
    snapshot: NativeSnapshot, segment: Segment, start: int, mask: NDArray[np.bool_]
) -> Segment:
    rows = snapshot.live(start, min(segment.last_row, max(start, len(mask))))
    rows = rows[mask[rows]]
    return Segment(segment.codes(rows), rows, segment.M, segment.last_row, find_rows=False)
