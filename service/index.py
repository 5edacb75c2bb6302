"""The codes in memory: a scanner and the seq of each of its rows."""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpq import scan
from service.store import Change

FIRST_CAPACITY = 1024


class Index:
    """Rows stand in seq order, so a seq is found by bisection.

    One thread applies changes at a time; searches need no lock: seqs are written before
    their rows can be found, and neither is ever overwritten.
    """

    def __init__(self, M: int, engine: str) -> None:
        self._scanner = scan.build(np.empty((0, (M + 1) // 2), dtype=np.uint8), M, engine)
        self._seqs = np.empty(FIRST_CAPACITY, dtype=np.int64)
        self._rows = 0
        self._applying = threading.Lock()

    def __len__(self) -> int:
        return len(self._scanner)

    @property
    def engine(self) -> str:
        """The name of the scan engine at work."""
        return self._scanner.engine

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply feed rows in order; rows already applied change nothing."""
        with self._applying:
            newest = self._newest()
            added = [c for c in changes if c.code is not None and c.seq > newest]
            if added:
                self._add([c.seq for c in added], [c.code for c in added if c.code is not None])
            self._remove([c.removes for c in changes if c.removes is not None])

    def add(self, codes: Sequence[tuple[int, bytes]]) -> None:
        """Append (seq, code) pairs, in seq order, when loading; known ones are passed over."""
        with self._applying:
            fresh = [(seq, code) for seq, code in codes if seq > self._newest()]
            if fresh:
                self._add([seq for seq, _ in fresh], [code for _, code in fresh])

    def search(self, lut: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """The nearest k as (seq, score), for one look-up table (1,M,K)."""
        rows, scores = self._scanner.search(lut, k)
        found = rows[0] >= 0
        seqs = self._seqs[rows[0][found]]
        return list(zip(seqs.tolist(), scores[0][found].tolist(), strict=True))

    def _newest(self) -> int:
        return int(self._seqs[self._rows - 1]) if self._rows else 0

    def _add(self, seqs: list[int], codes: list[bytes]) -> None:
        last = self._rows + len(seqs)
        if last > len(self._seqs):
            grown = np.empty(max(last, 2 * len(self._seqs)), dtype=np.int64)
            grown[: self._rows] = self._seqs[: self._rows]
            self._seqs = grown
        self._seqs[self._rows : last] = seqs
        self._scanner.add(np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), -1))
        self._rows = last

    def _remove(self, seqs: list[int]) -> None:
        if not seqs:
            return
        known = self._seqs[: self._rows]
        rows = np.searchsorted(known, seqs)
        inside = rows < self._rows
        rows, wanted = rows[inside], np.asarray(seqs)[inside]
        self._scanner.remove(rows[known[rows] == wanted])
