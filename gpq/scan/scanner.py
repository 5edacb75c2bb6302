"""The interface of every scan engine."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gpq.scan.mask import Mask


class Scanner(Protocol):
    """Holds codes in memory and searches them.

    Rows are numbered from 0 in the order in which codes are added, and are never renumbered.
    A search sees one immutable snapshot while other threads add and remove codes.

    A score is the float32 sum of LUT[m, code_m] over m = 0…M-1, in that order, without FMA.
    Hits are ordered by descending score, then by ascending row. ``ReferenceScanner`` defines the
    results; every other engine returns exactly its rows and scores.
    """

    @property
    def engine(self) -> str:
        """The name of the engine."""

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | Mask | None = None,
        after: tuple[float, int] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Look-up tables (Q,M,K) float32 -> rows (Q,k) int64 and scores (Q,k) float32.

        ``mask``: (n,) bool; a search finds only rows below n whose value is True. A ``Mask`` is
        meant for many searches; an engine may also recognise an array that it has seen before.
        ``after``: finds only the hits that follow this (score, row) in the order of hits.
        If fewer than k codes qualify, the remaining rows are -1 and their scores -inf.
        Raises ScanError if a shape is wrong, if k < 1, or if a look-up table has values that are
        not finite or so large that a score could overflow.
        """

    def add(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Appends codes (n,ceil(M/2)) uint8 and returns their rows (n,) int64."""

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Removes rows from all later searches; rows that were removed before are ignored.

        Raises ScanError if a row was never added.
        """

    def rows(self) -> NDArray[np.int64]:
        """Returns the rows that are not removed, in ascending order."""

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns the packed codes (n,ceil(M/2)) uint8 of rows (n,) int64 that are not removed.

        The code of a row never changes. Raises ScanError if a row was never added.
        """

    def __len__(self) -> int:
        """The number of rows that are not removed."""
