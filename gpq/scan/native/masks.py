"""Masks that cannot change: their eligible codes have sorted segments of their own."""

import threading
import weakref
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gpq.scan.native.segment import Segment
from gpq.scan.native.snapshot import Snapshot


@dataclass
class _Known:
    """Of one mask: for a segment, the one that holds its eligible codes alone."""

    eligible: weakref.WeakKeyDictionary[Segment, Segment] = field(
        default_factory=weakref.WeakKeyDictionary
    )
    sorting: threading.Lock = field(default_factory=threading.Lock)


class Masks:
    """What is sorted goes with its mask, or with its segment. An eligible 48-bit code takes
    about ten bytes, and on the first search a quarter of a microsecond."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def eligible(self, snapshot: Snapshot, mask: NDArray[np.bool_]) -> Snapshot | None:
        """With segments of eligible rows alone; nothing for a mask that can be written to, or
        is a view of one."""
        if mask.flags.writeable or mask.base is not None:
            return None
        known = self._known.get(id(mask))
        if known is None:
            known = self._known.setdefault(id(mask), _Known())
            weakref.finalize(mask, self._known.pop, id(mask), None)
        segments = []
        with known.sorting:  # once, whoever searches
            start = 0
            for segment in snapshot.segments:
                if segment not in known.eligible:
                    known.eligible[segment] = _eligible(snapshot, segment, start, mask)
                segments.append(known.eligible[segment])
                start = segment.last_row
        return replace(snapshot, segments=tuple(segments))


def _eligible(snapshot: Snapshot, segment: Segment, start: int, mask: NDArray[np.bool_]) -> Segment:
    rows = snapshot.live(start, min(segment.last_row, max(start, len(mask))))
    rows = rows[mask[rows]]
    return Segment(segment.codes(rows), rows, segment.M, segment.last_row, find_rows=False)
