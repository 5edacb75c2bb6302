"""Sorts the eligible codes of masks that many searches use into segments of their own."""

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

LEAST_CODES = 1 << 18  # with fewer codes, repeated arrays are not cached


class MaskedSegments:
    """Prepares and caches segments of the eligible codes of masks.

    An eligible 48-bit code takes about ten bytes, and a quarter of a microsecond on the first
    search. An array that is passed repeatedly is prepared in the background.
    """

    def __init__(self, snapshot: Callable[[], NativeSnapshot]) -> None:
        self._cache: MaskCache[Segment] = MaskCache()
        self._repeats = Repeats()
        self._snapshot = snapshot
        self._wanted: set[Mask] = set()
        self._background = Background(self._prepare)

    def prepared(self, snapshot: NativeSnapshot, rows: NDArray[np.bool_]) -> Mask | None:
        """Returns the mask of an array that was passed before, if the mask is prepared.

        If it is not yet prepared, preparing it starts in the background.
        """
        if snapshot.count < LEAST_CODES:
            return None
        mask = self._repeats.find(rows, snapshot.count)
        if mask is None or self._cache.ready(mask, snapshot.segments):
            return mask
        self._wanted.add(mask)
        self._background.request()
        return None

    def _prepare(self) -> None:
        while self._wanted:
            self.eligible(self._snapshot(), self._wanted.pop())

    def eligible(self, snapshot: NativeSnapshot, mask: Mask) -> NativeSnapshot:
        """Returns the snapshot with segments that hold only eligible rows."""
        segments = snapshot.segments

        def prepare(n: int) -> Segment:
            start = segments[n - 1].last_row if n else 0
            return _eligible_segment(snapshot, segments[n], start, mask.rows)

        return replace(snapshot, segments=self._cache.eligible(mask, segments, prepare))


def _eligible_segment(
    snapshot: NativeSnapshot, segment: Segment, start: int, mask: NDArray[np.bool_]
) -> Segment:
    rows = snapshot.live(start, min(segment.last_row, max(start, len(mask))))
    rows = rows[mask[rows]]
    return Segment(segment.codes(rows), rows, segment.M, segment.last_row, find_rows=False)
