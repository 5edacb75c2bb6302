"""When codes that were added are sorted, and what with."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpq.scan.native import tail
from gpq.scan.native.snapshot import NativeSnapshot

# A merged segment holds at most one in so many rows, or so many rows. While it is made there are
# some 27 bytes for each of its 48-bit codes beside the 14 that a code takes: half as much again at
# most. What is left of a purged one, of half of all rows at most, is beside it in smaller parts.
LARGEST_SHARE = 4
PURGED_SHARE = 16
LEAST_LARGEST = 1 << 17
WORTH_PURGING = 3 / 5  # of the codes of a segment live, or fewer


@dataclass(frozen=True)
class Merge:
    """Segments from first to last, and so many tails, that are to become one segment."""

    first: int
    last: int
    tails: int


def largest(rows: int, share: int = LARGEST_SHARE) -> int:
    """Rows of the largest segment among so many."""
    return max(LEAST_LARGEST, rows // share + 1)


def parts(
    snapshot: NativeSnapshot, merge: Merge, first: int, last: int
) -> Iterator[tuple[NDArray[np.uint32], int]]:
    """Live rows (n,) of new segments, and the end of each: one, of a large one purged several."""
    most = largest(snapshot.count, PURGED_SHARE)
    number = 1 if merge.tails else max(1, -(-snapshot.live_count(first, last) // most))
    for start, end in itertools.pairwise(np.linspace(first, last, number + 1).astype(int).tolist()):
        yield snapshot.live(start, end), end


def next_merge(snapshot: NativeSnapshot) -> Merge | None:
    """Full tails, with the last segments as long as those are at most twice as large: so a
    code is sorted again about log2 N times. Then segments that are worth purging."""
    segments, most = snapshot.segments, largest(snapshot.count)
    if full := min(sum(t.full for t in snapshot.tails), most // tail.ROWS):
        first, size = len(segments), full * tail.ROWS
        while first and segments[first - 1].size <= min(2 * size, most - size):
            first -= 1
            size += segments[first].size
        return Merge(first, len(segments), full)
    start = 0
    for i, segment in enumerate(segments):
        live = snapshot.live_count(start, segment.last_row)
        if live <= WORTH_PURGING * segment.size and segment.size:
            return Merge(i, i + 1, 0)
        start = segment.last_row
    return None
