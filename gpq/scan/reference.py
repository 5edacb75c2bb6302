"""Searches codes in plain numpy. This slow and simple engine defines the correct results."""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ScanError
from gpq.model.codebook import unpack
from gpq.scan.mask import Mask, checked_mask
from gpq.scan.tables import checked_codes, checked_rows, checked_shape, require_finite

CHUNK_ROWS = 1 << 16  # rows unpacked at a time, so that unpacked codes take little memory
SCORES_AT_A_TIME = 1 << 25  # float32 scores held at once (128 MiB), or those of one query
FIRST_CAPACITY = 1024


@dataclass(frozen=True)
class _ReferenceSnapshot:
    """Codes ``packed`` (N,ceil(M/2)) uint8 that never change, and which rows are ``live`` (N,)."""

    packed: NDArray[np.uint8]
    live: NDArray[np.bool_]
    removed: int


class ReferenceScanner:
    """A ``gpq.scan.Scanner`` in plain numpy."""

    engine = "reference"

    def __init__(self, packed: NDArray[np.uint8], M: int) -> None:
        if M < 1:
            raise ScanError(f"M is {M}; a code has at least one sub-code")
        self.M = M
        self._packed = np.empty((0, (M + 1) // 2), dtype=np.uint8)
        self._live = np.empty(0, dtype=np.bool_)
        self._snapshot = _ReferenceSnapshot(self._packed, self._live, 0)
        self._writing = threading.Lock()
        self.add(packed)

    def __len__(self) -> int:
        snapshot = self._snapshot
        return len(snapshot.packed) - snapshot.removed

    def rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._snapshot.live)

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        packed = self._snapshot.packed
        return packed[checked_rows(rows, len(packed))]

    def add(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        codes = checked_codes(packed, self.M)
        with self._writing:
            first, last = len(self._snapshot.packed), len(self._snapshot.packed) + len(codes)
            self._reserve(last)
            self._packed[first:last] = codes
            self._live[first:last] = True
            removed = self._snapshot.removed
            self._snapshot = _ReferenceSnapshot(self._packed[:last], self._live[:last], removed)
        return np.arange(first, last, dtype=np.int64)

    def remove(self, rows: NDArray[np.int64]) -> None:
        with self._writing:
            count = len(self._snapshot.packed)
            gone = checked_rows(rows, count)
            live = self._live.copy()  # running searches keep the old one
            live[gone] = False
            self._live = live
            removed = count - int(live[:count].sum())
            self._snapshot = _ReferenceSnapshot(self._snapshot.packed, live[:count], removed)

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | Mask | None = None,
        after: tuple[float, int] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        tables = checked_shape(luts, self.M, k)
        require_finite(tables)
        snapshot = self._snapshot
        eligible = snapshot.live
        if mask is not None:
            eligible = eligible & _fit(checked_mask(mask), len(eligible))
        rows = np.full((len(tables), k), -1, dtype=np.int64)
        scores = np.full((len(tables), k), -np.inf, dtype=np.float32)
        together = max(1, SCORES_AT_A_TIME // max(1, len(snapshot.packed)))
        for first in range(0, len(tables), together):
            part = scores_of(snapshot.packed, tables[first : first + together])
            for q, row_scores in enumerate(part, start=first):
                hits = _top(row_scores, eligible, k, after)
                rows[q, : len(hits)] = hits
                scores[q, : len(hits)] = row_scores[hits]
        return rows, scores

    def _reserve(self, rows: int) -> None:
        capacity = len(self._packed)
        if rows <= capacity:
            return
        capacity = max(rows, 2 * capacity, FIRST_CAPACITY)
        used = len(self._snapshot.packed)
        packed = np.zeros((capacity, self._packed.shape[1]), dtype=np.uint8)
        live = np.zeros(capacity, dtype=np.bool_)
        packed[:used], live[:used] = self._snapshot.packed, self._snapshot.live
        self._packed, self._live = packed, live


def scores_of(packed: NDArray[np.uint8], tables: NDArray[np.float32]) -> NDArray[np.float32]:
    """Codes (N,ceil(M/2)), tables (Q,M,K) -> scores (Q,N) float32, summed in order of m."""
    M = tables.shape[1]
    scores = np.zeros((len(tables), len(packed)), dtype=np.float32)
    for first in range(0, len(packed), CHUNK_ROWS):
        codes = unpack(packed[first : first + CHUNK_ROWS], M).T.astype(np.intp)
        part = scores[:, first : first + CHUNK_ROWS]
        for m in range(M):
            part += tables[:, m].take(codes[m], axis=1)
    return scores


def _fit(mask: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    """Fits a mask to ``rows`` rows; rows that were added after the mask are not eligible."""
    fitted = np.zeros(rows, dtype=np.bool_)
    fitted[: len(mask)] = mask[:rows]
    return fitted


def _top(
    scores: NDArray[np.float32],
    eligible: NDArray[np.bool_],
    k: int,
    after: tuple[float, int] | None,
) -> NDArray[np.int64]:
    """Returns the first k eligible rows by descending score, then ascending row."""
    if after is not None:
        with np.errstate(over="ignore"):  # a score beyond float32 is infinite
            score = np.float32(after[0])
        later = np.arange(len(scores)) > after[1]
        eligible = eligible & ((scores < score) | ((scores == score) & later))
    rows = np.flatnonzero(eligible)
    if len(rows) > k:
        kth = np.partition(scores[rows], -k)[-k]
        rows = rows[scores[rows] >= kth]
    order = (-scores[rows]).argsort(kind="stable")
    return rows[order][:k]
