"""Plans which added codes and segments are sorted into new segments."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpq.scan.native import tail
from gpq.scan.native.snapshot import NativeSnapshot

# A merged segment holds at most 1 / LARGEST_SHARE of all rows, or LEAST_LARGEST if that is more.
# Sorting takes about 27 bytes for each 48-bit code of the segment, beside the 14 bytes that each
# stored code takes: at most half as much memory again. A purged segment may hold half of all rows,
# so its live codes are sorted into smaller parts, of at most 1 / PURGED_SHARE of all rows.
LARGEST_SHARE = 4
PURGED_SHARE = 16
LEAST_LARGEST = 1 << 17
WORTH_PURGING = 3 / 5  # share of live codes at or below which a segment is purged


@dataclass(frozen=True)
class Merge:
    """The segments from ``first`` to ``last``, and the first ``tails`` tails, to merge into one."""

    first: int
    last: int
    tails: int


def largest(rows: int, share: int = LARGEST_SHARE) -> int:
    """Returns the number of rows that a new segment may have, among ``rows`` rows."""
    return max(LEAST_LARGEST, rows // share + 1)


def parts(
    snapshot: NativeSnapshot, merge: Merge, first: int, last: int
) -> Iterator[tuple[NDArray[np.uint32], int]]:
    """Yields the live rows (n,) and the end of each new segment of a merge.

    A merge makes one segment; purging a large segment makes several.
    """
    most = largest(snapshot.count, PURGED_SHARE)
    number = 1 if merge.tails else max(1, -(-snapshot.live_count(first, last) // most))
    for start, end in itertools.pairwise(np.linspace(first, last, number + 1).astype(int).tolist()):
        yield snapshot.live(start, end), end


def next_merge(snapshot: NativeSnapshot) -> Merge | None:
    """Plans the next merge, or returns None if none is due.

    Full tails come first, merged with the last segments while these are at most twice as large.
    A code is therefore sorted about log2 N times. Segments with many removed codes follow.
    """
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
