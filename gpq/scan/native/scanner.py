"""The scanner: sorted segments, tails of what was added since, one snapshot a search."""

import ctypes
import itertools
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_void_p
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ScanError
from gpq.scan.native import library, tail
from gpq.scan.native.segment import Segment
from gpq.scan.native.tail import Tail
from gpq.scan.tables import checked_codes, checked_shape, require_finite

LARGEST_SHARE = (
    4  # a segment holds at most one in so many rows, so that merging takes little memory
)
LEAST_LARGEST = 1 << 20  # or so many
MOST_ROWS = (1 << 32) - 1
MOST_SUBCODES = 64
WORD = 64
WORTH_THREADS = 10_000_000  # codes times queries, about a millisecond on one

log = logging.getLogger("gpq.scan")


@dataclass(frozen=True)
class _Snapshot:
    """All rows in order: those of the segments, then those of the tails.

    removed (…,) uint64, a bit a row; rows to come have one each, not set.
    """

    segments: tuple[Segment, ...]
    tails: tuple[Tail, ...]
    removed: NDArray[np.uint64]
    removed_count: int
    pointers: ctypes.Array[c_void_p] = field(init=False, repr=False)
    tail_array: ctypes.Array[library.Tail] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pointers = (c_void_p * len(self.segments))(*(s.pointer for s in self.segments))
        tails = (library.Tail * len(self.tails))(
            *(library.Tail(t.blocks.ctypes.data, t.first_row, t.count) for t in self.tails)
        )
        object.__setattr__(self, "pointers", pointers)
        object.__setattr__(self, "tail_array", tails)

    @property
    def count(self) -> int:
        """Rows, the removed ones too."""
        return self.tails[-1].last_row

    def live(self, first: int, last: int) -> NDArray[np.uint32]:
        """Rows from first to last that are not removed."""
        start = first // WORD
        words = self.removed[start : last // WORD + 1]
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        rows = np.flatnonzero(bits[first - start * WORD : last - start * WORD] == 0) + first
        return rows.astype(np.uint32)

    def codes(self, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """(n,) ascending -> (n,ceil(M/2))."""
        parts: list[NDArray[np.uint8]] = []
        first = 0
        holders: list[Segment | Tail] = [*self.segments, *self.tails]
        for part in holders:
            last = int(np.searchsorted(rows, part.last_row))
            parts.append(part.codes(rows[first:last]))
            first = last
        return np.concatenate(parts)


class NativeScanner:
    """See ``gpq.scan.Scanner``. M from 1 to 64, up to 2³²-2 rows.

    instructions: avx512, avx2, neon, portable, or nothing for the fastest there is.
    threads: that the queries of a search are divided among; all processors' by default.
    Raises ScanError where the machine has no such instructions, OSError without the kernel.
    """

    engine = "native"

    def __init__(
        self,
        packed: NDArray[np.uint8],
        M: int,
        *,
        instructions: str = "",
        threads: int | None = None,
    ) -> None:
        if not 1 <= M <= MOST_SUBCODES:
            raise ScanError(f"M is {M}; a code has 1 to {MOST_SUBCODES} sub-codes")
        self.M = M
        self.instructions = library.instructions(instructions)
        self.threads = threads or len(os.sched_getaffinity(0))
        self._writing, self._merging = threading.Lock(), threading.Lock()
        codes = checked_codes(packed, M)
        _require_room(len(codes))
        segments = tuple(self._sorted(codes)) if len(codes) > tail.ROWS else ()
        sorted_rows = len(codes) if segments else 0
        removed = np.zeros(len(codes) // WORD + 1, dtype=np.uint64)
        self._snapshot = _Snapshot(segments, (Tail.empty(sorted_rows, M),), removed, 0)
        self.add(codes[sorted_rows:])

    def __len__(self) -> int:
        return self._snapshot.count - self._snapshot.removed_count

    @property
    def bytes(self) -> int:
        """Of memory that the codes take."""
        snapshot = self._snapshot
        tails = sum(t.blocks.nbytes for t in snapshot.tails)
        return sum(s.bytes for s in snapshot.segments) + tails + snapshot.removed.nbytes

    def rows(self) -> NDArray[np.int64]:
        return self._snapshot.live(0, self._snapshot.count).astype(np.int64)

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        order = np.argsort(rows, kind="stable")
        packed = np.empty((len(rows), (self.M + 1) // 2), dtype=np.uint8)
        packed[order] = self._snapshot.codes(np.asarray(rows)[order].astype(np.uint32))
        return packed

    def add(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        codes = checked_codes(packed, self.M)
        with self._writing:
            snapshot = self._snapshot
            first = snapshot.count
            _require_room(first + len(codes))
            tails = list(snapshot.tails)
            while len(codes):
                room = tail.ROWS - tails[-1].count
                tails[-1] = tails[-1].with_codes(codes[:room])
                codes = codes[room:]
                if tails[-1].full:
                    tails.append(Tail.empty(tails[-1].last_row, self.M))
            self._snapshot = replace(
                snapshot,
                tails=tuple(tails),
                removed=_grown(snapshot.removed, tails[-1].last_row),
            )
        if len(tails) > 1:
            self._merge_soon()
        return np.arange(first, tails[-1].last_row, dtype=np.int64)

    def remove(self, rows: NDArray[np.int64]) -> None:
        gone = np.unique(np.asarray(rows, dtype=np.int64))
        with self._writing:
            snapshot = self._snapshot
            if len(gone) and (gone[0] < 0 or gone[-1] >= snapshot.count):
                raise ScanError(f"rows to remove lie outside 0…{snapshot.count - 1}")
            removed = snapshot.removed.copy()  # searches under way keep the old one
            words, bits = gone // WORD, np.uint64(1) << (gone % WORD).astype(np.uint64)
            fresh = int(np.count_nonzero(removed[words] & bits == 0))
            np.bitwise_or.at(removed, words, bits)
            self._snapshot = replace(
                snapshot, removed=removed, removed_count=snapshot.removed_count + fresh
            )
        if 2 * self._snapshot.removed_count > self._snapshot.count:
            self._merge_soon()

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None = None,
        after: tuple[float, int] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        tables = checked_shape(luts, self.M, k)
        eligible = None if mask is None else np.ascontiguousarray(mask, dtype=np.bool_)
        rows = np.empty((len(tables), k), dtype=np.int64)
        scores = np.empty((len(tables), k), dtype=np.float32)
        snapshot = self._snapshot
        threads = min(self.threads, len(tables))
        if threads < 2 or len(tables) * snapshot.count < WORTH_THREADS:
            self._search(snapshot, tables, eligible, after, rows, scores)
            return rows, scores
        edges = np.linspace(0, len(tables), threads + 1).astype(int)
        parts = [slice(first, last) for first, last in itertools.pairwise(edges)]

        def search_part(part: slice) -> None:
            self._search(snapshot, tables[part], eligible, after, rows[part], scores[part])

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(search_part, parts))
        return rows, scores

    def merge(self) -> None:
        """Sort what was added into segments, and leave out of them what was removed.

        ``add`` has it done in the background; searches go on meanwhile.
        """
        with self._merging:
            while (job := self._next_job(self._snapshot)) is not None:
                first, last, tails = job
                segments = self._snapshot.segments
                start = segments[first - 1].last_row if first else 0
                end = (
                    self._snapshot.tails[tails - 1].last_row if tails else segments[first].last_row
                )
                rows = self._snapshot.live(start, end)
                merged = Segment(self._snapshot.codes(rows), rows, self.M)
                merged.last_row = end
                with self._writing:
                    snapshot = self._snapshot
                    self._snapshot = replace(
                        snapshot,
                        segments=(*segments[:first], merged, *segments[last:]),
                        tails=snapshot.tails[tails:],
                    )

    def _merge_soon(self) -> None:
        if not self._merging.locked():
            threading.Thread(target=self.merge, name="scan-merge", daemon=True).start()

    def _next_job(self, snapshot: _Snapshot) -> tuple[int, int, int] | None:
        """Segments from first to last and how many tails are to become one segment.

        Full tails, with the last segments as long as those are at most twice as large: so a
        code is sorted again about log2 N times. Then segments that are half removed.
        """
        segments, most = snapshot.segments, _largest(snapshot.count)
        if full := min(sum(t.full for t in snapshot.tails), most // tail.ROWS):
            first, size = len(segments), full * tail.ROWS
            while first and segments[first - 1].size <= min(2 * size, most - size):
                first -= 1
                size += segments[first].size
            return first, len(segments), full
        start = 0
        for i, segment in enumerate(segments):
            if segment.size and len(snapshot.live(start, segment.last_row)) <= segment.size / 2:
                return i, i + 1, 0
            start = segment.last_row
        return None

    def _sorted(self, packed: NDArray[np.uint8]) -> list[Segment]:
        rows = np.arange(len(packed), dtype=np.uint32)
        parts = -(-len(packed) // _largest(len(packed)))
        return [Segment(packed[p], p, self.M) for p in np.array_split(rows, parts)]

    def _search(
        self,
        snapshot: _Snapshot,
        luts: NDArray[np.float32],
        mask: NDArray[np.bool_] | None,
        after: tuple[float, int] | None,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> None:
        request = library.Request(
            segments=snapshot.pointers,
            segment_count=len(snapshot.segments),
            tails=snapshot.tail_array,
            tail_count=len(snapshot.tails),
            M=self.M,
            luts=luts.ctypes.data,
            queries=len(luts),
            k=rows.shape[1],
            removed=snapshot.removed.ctypes.data,
            mask=None if mask is None else mask.ctypes.data,
            mask_rows=0 if mask is None else len(mask),
            has_after=after is not None,
            after_score=after[0] if after else 0,
            after_row=after[1] if after else 0,
            rows=rows.ctypes.data,
            scores=scores.ctypes.data,
        )
        status = library.kernel().gpq_search(ctypes.byref(request), self.instructions.encode())
        if status == library.NOT_FINITE:
            require_finite(luts)
        if status == library.NO_MEMORY:
            raise MemoryError(f"no memory for {rows.shape[1]} hits of {len(luts)} queries")


def _largest(rows: int) -> int:
    """Rows of the largest segment among so many."""
    return max(LEAST_LARGEST, rows // LARGEST_SHARE + 1)


def _grown(removed: NDArray[np.uint64], rows: int) -> NDArray[np.uint64]:
    """With a bit for each of so many rows; the words in use are kept, or copied."""
    words = rows // WORD + 1
    if words <= len(removed):
        return removed
    grown = np.zeros(max(words, len(removed) + tail.ROWS // WORD), dtype=np.uint64)
    grown[: len(removed)] = removed
    return grown


def _require_room(rows: int) -> None:
    if rows > MOST_ROWS:
        raise ScanError(f"{rows} rows; the native engine holds {MOST_ROWS}")
