"""Masks, which say which rows a search may find."""

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ScanError


class Mask:
    """Eligible rows (n,) bool for many searches, for which an engine may prepare its codes once.

    A mask copies the array into immutable bytes, so that later writes to the array have no effect.
    Raises ScanError if the type or the shape is wrong.
    """

    def __init__(self, rows: NDArray[np.bool_]) -> None:
        self.rows = np.frombuffer(checked_mask(rows).tobytes(), dtype=np.bool_)
        self._parts: dict[tuple[int, int], Mask] = {}

    def part(self, n: int, G: int) -> "Mask":
        """Returns the mask of rows n, n + G, n + 2G, …; always the same object."""
        if part := self._parts.get((n, G)):
            return part
        return self._parts.setdefault((n, G), Mask(self.rows[n::G]))


def checked_mask(mask: NDArray[np.bool_] | Mask) -> NDArray[np.bool_]:
    """Returns a mask as a contiguous array (n,) bool; raises ScanError if it is not one."""
    if isinstance(mask, Mask):
        return mask.rows
    eligible = np.ascontiguousarray(mask)
    if eligible.dtype != np.bool_ or eligible.ndim != 1:
        raise ScanError(f"the mask is {eligible.dtype} {eligible.shape}; expected bool (n,)")
    return eligible
