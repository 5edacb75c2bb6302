"""Holds the codes of one model in memory: a scanner, and the seq of each of its rows."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpq import scan
from gpq.scan import Mask, reference
from service.database.records import Change
from service.index.seqs import Seqs

COMPACT_ROWS = 100_000  # with fewer removed codes, compacting never pays
CHECKSUM_ROWS = 1 << 16  # rows hashed, or scored, at a time
MASKED_TOGETHER = 1 << 20  # rows compared with seqs at a time

Pairs = Sequence[Any]  # (seq, code)


@dataclass(frozen=True)
class Codes:
    """Codes with their seqs: ``seqs`` (n,) int64, ascending; ``packed`` (n,ceil(M/2)) uint8."""

    seqs: NDArray[np.int64]
    packed: NDArray[np.uint8]

    @classmethod
    def gather(cls, parts: Iterable[Pairs], code_bytes: int) -> "Codes":
        """Joins lists of (seq, code). Raises ValueError for a code of another length."""
        seqs = [np.empty(0, dtype=np.int64)]
        packed = [np.empty((0, code_bytes), dtype=np.uint8)]
        for part in parts:
            seqs.append(np.array([seq for seq, _ in part], dtype=np.int64))
            packed.append(_packed([code for _, code in part], code_bytes))
        return cls(np.concatenate(seqs), np.concatenate(packed))


class Index:
    """The codes of the model with id ``model``, in seq order.

    Only one thread applies changes at a time. Searches need no lock: a row's seq is written
    before a search can find the row, and neither is ever overwritten.
    """

    def __init__(self, model: str, M: int, engine: str, codes: Codes | None = None) -> None:
        self.model = model
        self.code_bytes = (M + 1) // 2
        codes = codes or Codes.gather([], self.code_bytes)
        self._seqs = Seqs(codes.seqs)
        self._scanner = scan.build(codes.packed, M, engine)
        self._applying = threading.Lock()

    def __len__(self) -> int:
        return len(self._scanner)

    @property
    def engine(self) -> str:
        """Name of the scan engine that answers searches now."""
        return self._scanner.engine

    @property
    def worth_compacting(self) -> bool:
        """Whether more than half of the rows, and not just a few, belong to removed codes."""
        removed = len(self._seqs) - len(self)
        return removed > max(COMPACT_ROWS, len(self))

    def apply(self, changes: Sequence[Change]) -> None:
        """Applies changes in seq order; changes applied before have no effect."""
        with self._applying:
            newest = self._seqs.newest
            added = [c for c in changes if self.model in c.codes and c.seq > newest]
            if added:
                self._add([c.seq for c in added], [c.codes[self.model] for c in added])
            self._remove([c.removes for c in changes if c.removes is not None])

    @property
    def rows(self) -> int:
        """The number of rows, with those of removed codes."""
        return len(self._seqs)

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: Mask | None = None,
        after: tuple[float, int] | None = None,
    ) -> list[list[tuple[int, float]]]:
        """Returns the k best (seq, score) for each look-up table of ``luts`` (Q,M,K) float32.

        ``mask``: the rows to search. ``after``: only those that follow this (score, seq).
        """
        place = None if after is None else (after[0], self._seqs.rows_up_to(after[1]) - 1)
        rows, scores = self._scanner.search(luts, k, mask, place)
        return [
            list(zip(self._seqs[found[found >= 0]].tolist(), score.tolist(), strict=False))
            for found, score in zip(rows, scores, strict=True)
        ]

    def rows_from(
        self,
        lut: NDArray[np.float32],
        least: float,
        mask: Mask | None = None,
        go_on: Callable[[], object] = lambda: None,
    ) -> NDArray[np.int64]:
        """Returns the rows whose score with a look-up table (M,K) is ``least`` or more, ascending.

        ``go_on`` is called after each part, and may raise.
        """
        rows = self._scanner.rows()
        if mask is not None:
            rows = rows[rows < len(mask.rows)]
            rows = rows[mask.rows[rows]]
        found = []
        for part in np.array_split(rows, len(rows) // CHECKSUM_ROWS + 1):
            scores = reference.scores_of(self._scanner.codes(part), lut[None])[0]
            found.append(part[scores >= np.float64(least)])
            go_on()
        return np.concatenate(found)

    def mask(self, seqs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns which rows (n,) have one of these seqs, which must ascend."""
        count = self.rows
        mask = np.zeros(count, dtype=np.bool_)
        for first in range(0, count, MASKED_TOGETHER):
            own = self._seqs[np.arange(first, min(first + MASKED_TOGETHER, count))]
            low, high = np.searchsorted(seqs, (own[0], own[-1] + 1))
            mask[first : first + len(own)] = np.isin(own, seqs[low:high], assume_unique=True)
        return mask

    def seqs(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the seqs of rows."""
        return self._seqs[rows]

    def rows_of(self, seqs: Iterable[int]) -> NDArray[np.int64]:
        """Returns the rows of seqs; a seq that no row has is skipped."""
        return self._seqs.rows_of(np.array(list(seqs), dtype=np.int64))

    def codes(self) -> Codes:
        """Returns the codes that are not removed, and their seqs."""
        rows = self._scanner.rows()
        return Codes(self._seqs[rows], self._scanner.codes(rows))

    def checksum(self) -> str:
        """Returns ``checksum`` of the codes that are not removed."""
        rows = self._scanner.rows()
        return checksum(
            self._pairs(part) for part in np.array_split(rows, len(rows) // CHECKSUM_ROWS + 1)
        )

    def _pairs(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, bytes]]:
        codes = map(bytes, self._scanner.codes(rows))
        return zip(self._seqs[rows].tolist(), codes, strict=True)

    def _add(self, seqs: list[int], codes: list[bytes]) -> None:
        packed = _packed(codes, self.code_bytes)
        before = len(self._seqs)
        self._seqs.append(np.array(seqs, dtype=np.int64))
        try:
            self._scanner.add(packed)
        except BaseException:  # out of memory: the same changes will be applied again
            self._seqs.cut(before)
            raise

    def _remove(self, seqs: list[int]) -> None:
        if seqs:
            self._scanner.remove(self._seqs.rows_of(np.array(seqs, dtype=np.int64)))


def _packed(codes: Sequence[bytes], code_bytes: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), code_bytes)


def checksum(parts: Iterable[Iterable[tuple[int, bytes]]]) -> str:
    """Returns the SHA-256 of (seq, code) pairs in seq order, as hex."""
    digest = hashlib.sha256()
    for part in parts:
        for seq, code in part:
            digest.update(seq.to_bytes(8, "little") + code)
    return digest.hexdigest()
