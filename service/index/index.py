"""The codes in memory: a scanner and the seq of each of its rows."""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpq import scan
from service.index.seqs import Seqs
from service.settings import COMPACT_ROWS

CHECKSUM_ROWS = 1 << 16  # hashed at a time

Pairs = Sequence[Any]  # of (seq, code)


@dataclass(frozen=True)
class Edit:
    """The seq of a code that is taken out, if any, and the code put in as ``seq``, if any."""

    seq: int
    removes: int | None
    code: bytes | None


@dataclass(frozen=True)
class Codes:
    """seqs (n,) int64, ascending; packed (n,ceil(M/2)) uint8."""

    seqs: NDArray[np.int64]
    packed: NDArray[np.uint8]

    @classmethod
    def gather(cls, parts: Iterable[Pairs], code_bytes: int) -> "Codes":
        """Lists of (seq, code) -> arrays; raises ValueError for a code of another length."""
        seqs = [np.empty(0, dtype=np.int64)]
        packed = [np.empty((0, code_bytes), dtype=np.uint8)]
        for part in parts:
            seqs.append(np.array([seq for seq, _ in part], dtype=np.int64))
            packed.append(_packed([code for _, code in part], code_bytes))
        return cls(np.concatenate(seqs), np.concatenate(packed))


class Index:
    """Rows stand in seq order, so a seq is found by bisection.

    One thread applies changes at a time; searches need no lock: seqs are written before
    their rows can be found, and neither is ever overwritten.
    """

    def __init__(self, M: int, engine: str, codes: "Codes | None" = None) -> None:
        self.code_bytes = (M + 1) // 2
        codes = codes or Codes.gather([], self.code_bytes)
        self._seqs = Seqs(codes.seqs)
        self._scanner = scan.build(codes.packed, M, engine)
        self._applying = threading.Lock()

    def __len__(self) -> int:
        return len(self._scanner)

    @property
    def engine(self) -> str:
        """That finds the hits now."""
        return self._scanner.engine

    @property
    def worth_compacting(self) -> bool:
        """More than half of the rows, and not few, are of codes taken out."""
        removed = len(self._seqs) - len(self)
        return removed > max(COMPACT_ROWS, len(self))

    def apply(self, edits: Sequence[Edit]) -> None:
        """Apply edits in order of their seqs; those already applied change nothing."""
        with self._applying:
            newest = self._seqs.newest
            added = [e for e in edits if e.code is not None and e.seq > newest]
            if added:
                self._add([e.seq for e in added], [e.code for e in added if e.code is not None])
            self._remove([e.removes for e in edits if e.removes is not None])

    def search(self, luts: NDArray[np.float32], k: int) -> list[list[tuple[int, float]]]:
        """For each look-up table of (Q,M,K), the nearest k as (seq, score)."""
        rows, scores = self._scanner.search(luts, k)
        return [
            list(zip(self._seqs[found[found >= 0]].tolist(), score.tolist(), strict=False))
            for found, score in zip(rows, scores, strict=True)
        ]

    def codes(self) -> Codes:
        """The live codes and their seqs."""
        rows = self._scanner.rows()
        return Codes(self._seqs[rows], self._scanner.codes(rows))

    def checksum(self) -> str:
        """Of the live codes and their seqs; equals ``checksum`` of the same pairs."""
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
        except BaseException:  # no memory: the changes come again
            self._seqs.cut(before)
            raise

    def _remove(self, seqs: list[int]) -> None:
        if seqs:
            self._scanner.remove(self._seqs.rows_of(np.array(seqs, dtype=np.int64)))


def _packed(codes: Sequence[bytes], code_bytes: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), code_bytes)


def checksum(parts: Iterable[Iterable[tuple[int, bytes]]]) -> str:
    """SHA-256 over (seq, code) pairs in seq order, as hex."""
    digest = hashlib.sha256()
    for part in parts:
        for seq, code in part:
            digest.update(seq.to_bytes(8, "little") + code)
    return digest.hexdigest()
