"""What every engine does."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gpq.scan.mask import Mask


class Scanner(Protocol):
    """Codes in memory. Rows are numbered from 0 in order of adding and never renumbered.

    A search sees one immutable snapshot, whatever is added or removed meanwhile.
    """

    @property
    def engine(self) -> str:
        """Its name."""

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | Mask | None = None,
        after: tuple[float, int] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """luts (Q,M,K) float32 -> rows (Q,k) int64, scores (Q,k) float32.

        mask (n,) bool: only rows below n that are True. As a ``Mask`` it is for many searches;
        an engine may also recognise an array that comes again.
        after: only hits that come later in the order than this (score, row).
        Missing hits are row -1, score -inf.
        Raises ScanError for a wrong shape, k < 1, or a look-up table that is not finite, or so
        large that a score could overflow.
        """

    def add(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Append codes (n,ceil(M/2)) uint8 and return their rows (n,) int64."""

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Take rows out of all later searches; rows already out are ignored.

        Raises ScanError for a row that never was.
        """

    def rows(self) -> NDArray[np.int64]:
        """The rows not taken out, ascending."""

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Packed codes (n,ceil(M/2)) uint8 of rows (n,) int64 that are not taken out.

        A row's code never changes. Raises ScanError for a row that never was.
        """

    def __len__(self) -> int:
        """Live rows."""
