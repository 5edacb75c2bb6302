"""The native scanner. A change makes a new snapshot; a search uses the current one."""

import ctypes
import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ScanError
from gpq.scan.hits import Hits
from gpq.scan.mask import Mask, checked_mask
from gpq.scan.native import division, library, masks, merging, tail
from gpq.scan.native.background import Background
from gpq.scan.native.segment import Segment
from gpq.scan.native.snapshot import WORD, NativeSnapshot
from gpq.scan.native.tail import Tail
from gpq.scan.tables import checked_codes, checked_rows, checked_shape, require_finite
from gpq.system.processors import processors

MOST_ROWS = (1 << 32) - 1
MOST_SUBCODES = 64
MOST_THREADS = 8  # default number of threads, at most
WORTH_THREADS = 100_000_000  # codes times queries: about ten milliseconds on one thread
# More than MANY_CODES codes are first sorted into two segments: one segment would take more memory
# to sort and to purge, and more segments would take longer to search.
FIRST_SEGMENTS, MANY_CODES = 2, 1 << 20
LAST_ROW = 1 << 40  # later rows of ``after`` are clamped to it, with the same result


class NativeScanner:
    """A ``gpq.scan.Scanner`` of up to 2³²-1 rows, with M from 1 to 64.

    ``instructions``: avx512vbmi, avx512, avx2, neon or portable; by default the fastest that the
    machine has.
    ``threads``: number of threads that share a long search; by default the number of processors
    that this process may use, at most 8.
    Raises ScanError if the machine lacks the instructions, and OSError if the kernel is missing.
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
        self.threads = threads or min(MOST_THREADS, processors())
        self._writing, self._merging = threading.Lock(), threading.Lock()
        self._background = Background(self.merge)
        self._masks = masks.MaskedSegments(lambda: self._snapshot)
        codes = checked_codes(packed, M)
        _require_room(len(codes))
        segments = tuple(self._sorted(codes)) if len(codes) > tail.ROWS else ()
        sorted_rows = len(codes) if segments else 0
        removed = np.zeros(len(codes) // WORD + 1, dtype=np.uint64)
        self._snapshot = NativeSnapshot(segments, (Tail.empty(sorted_rows, M),), removed, 0)
        self.add(codes[sorted_rows:])

    def __len__(self) -> int:
        snapshot = self._snapshot
        return snapshot.count - snapshot.removed_count

    @property
    def bytes(self) -> int:
        """The memory that the codes take, in bytes."""
        snapshot = self._snapshot
        tails = sum(t.blocks.nbytes for t in snapshot.tails)
        return sum(s.bytes for s in snapshot.segments) + tails + snapshot.removed.nbytes

    def rows(self) -> NDArray[np.int64]:
        snapshot = self._snapshot
        return snapshot.live(0, snapshot.count).astype(np.int64)

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        snapshot = self._snapshot
        numbers = checked_rows(rows, snapshot.count).astype(np.uint32)
        order = np.argsort(numbers, kind="stable")
        packed = np.empty((len(numbers), (self.M + 1) // 2), dtype=np.uint8)
        packed[order] = snapshot.codes(numbers[order])
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
            self._background.request()
        return np.arange(first, tails[-1].last_row, dtype=np.int64)

    def remove(self, rows: NDArray[np.int64]) -> None:
        with self._writing:
            snapshot = self._snapshot
            gone = np.unique(checked_rows(rows, snapshot.count))
            removed = snapshot.removed.copy()  # running searches keep the old one
            words, bits = gone // WORD, np.uint64(1) << (gone % WORD).astype(np.uint64)
            fresh = int(np.count_nonzero(removed[words] & bits == 0))
            np.bitwise_or.at(removed, words, bits)
            self._snapshot = replace(
                snapshot, removed=removed, removed_count=snapshot.removed_count + fresh
            )
        if len(self) < merging.WORTH_PURGING * self._snapshot.held:
            self._background.request()

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | Mask | None = None,
        after: tuple[float, int] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        tables = checked_shape(luts, self.M, k)
        eligible = None if mask is None else checked_mask(mask)
        snapshot = self._snapshot
        mask_from = 0
        prepared = mask if isinstance(mask, Mask) else None
        if prepared is None and eligible is not None:
            prepared = self._masks.prepared(snapshot, eligible)
        if prepared is not None:
            snapshot = self._masks.eligible(snapshot, prepared)
            mask_from = snapshot.tails[0].first_row
        worth = len(tables) * snapshot.count >= WORTH_THREADS
        shares = division.shares(len(tables), k, snapshot.count, self.threads if worth else 1)

        def search(share: division.Share) -> Hits:
            return self._search(snapshot, tables, share, k, eligible, mask_from, after)

        return division.search(search, shares)

    def merge(self) -> None:
        """Sorts added codes into segments, and drops removed codes from segments.

        ``add`` and ``remove`` start it in the background, while searches continue.
        """
        with self._merging:
            while (merge := merging.next_merge(self._snapshot)) is not None:
                self._run_merge(merge)
                library.kernel().gpq_trim()

    def _run_merge(self, merge: merging.Merge) -> None:
        before = self._snapshot
        start = before.segments[merge.first - 1].last_row if merge.first else 0
        ends: Segment | Tail = (
            before.tails[merge.tails - 1] if merge.tails else before.segments[merge.first]
        )
        merged = [
            Segment(before.codes(rows), rows, self.M, last_row)
            for rows, last_row in merging.parts(before, merge, start, ends.last_row)
        ]
        with self._writing:
            now = self._snapshot  # only its tails and removals may have changed
            segments = (*before.segments[: merge.first], *merged, *before.segments[merge.last :])
            self._snapshot = replace(now, segments=segments, tails=now.tails[merge.tails :])

    def _sorted(self, packed: NDArray[np.uint8]) -> list[Segment]:
        rows = np.arange(len(packed), dtype=np.uint32)
        parts = FIRST_SEGMENTS if len(packed) > MANY_CODES else 1
        segments = [
            Segment(packed[p], p, self.M, int(p[-1]) + 1) for p in np.array_split(rows, parts)
        ]
        library.kernel().gpq_trim()
        return segments

    def _search(
        self,
        snapshot: NativeSnapshot,
        tables: NDArray[np.float32],
        share: division.Share,
        k: int,
        mask: NDArray[np.bool_] | None,
        mask_from: int,
        after: tuple[float, int] | None,
    ) -> Hits:
        luts = tables[share.queries]
        rows = np.empty((len(luts), k), dtype=np.int64)
        scores = np.empty((len(luts), k), dtype=np.float32)
        request = library.RequestStruct(
            segments=snapshot.pointers,
            segment_count=len(snapshot.segments),
            tails=snapshot.tail_array,
            tail_count=len(snapshot.tails),
            M=self.M,
            luts=luts.ctypes.data,
            queries=len(luts),
            k=k,
            part=share.part,
            parts=share.parts,
            removed=snapshot.removed.ctypes.data if snapshot.removed_count else None,
            mask=None if mask is None else mask.ctypes.data,
            mask_rows=0 if mask is None else len(mask),
            mask_from=mask_from,
            has_after=after is not None,
            after_score=after[0] if after else 0,
            after_row=min(max(after[1], -1), LAST_ROW) if after else 0,
            rows=rows.ctypes.data,
            scores=scores.ctypes.data,
        )
        status = library.kernel().gpq_search(ctypes.byref(request), self.instructions.encode())
        if status == library.NO_MEMORY:
            raise MemoryError(f"too little memory for {k} hits of {len(luts)} queries")
        if status == library.NOT_FINITE:
            require_finite(luts)
        if status:
            raise ScanError(f"the scan kernel failed with status {status}")
        return rows, scores


def _grown(removed: NDArray[np.uint64], rows: int) -> NDArray[np.uint64]:
    """Returns the bits of removed rows, with a bit for each of at least ``rows`` rows."""
    words = rows // WORD + 1
    if words <= len(removed):
        return removed
    grown = np.zeros(max(words, len(removed) + tail.ROWS // WORD), dtype=np.uint64)
    grown[: len(removed)] = removed
    return grown


def _require_room(rows: int) -> None:
    if rows > MOST_ROWS:
        raise ScanError(f"{rows} rows are too many; the native engine holds at most {MOST_ROWS}")
