"""Which rows a search may find."""

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ScanError


class Mask:
    """Eligible rows (n,) bool for many searches, which an engine may prepare on the first. A copy
    over bytes: nothing can write to it, whatever becomes of the array it was made from.

    Raises ScanError for another type or shape.
    """

    def __init__(self, rows: NDArray[np.bool_]) -> None:
        self.rows = np.frombuffer(checked_mask(rows).tobytes(), dtype=np.bool_)
        self._parts: dict[tuple[int, int], Mask] = {}

    def part(self, n: int, G: int) -> "Mask":
        """Of rows n, n + G, n + 2G, …; the same one whenever it is asked for."""
        if part := self._parts.get((n, G)):
            return part
        return self._parts.setdefault((n, G), Mask(self.rows[n::G]))


def checked_mask(mask: NDArray[np.bool_] | Mask) -> NDArray[np.bool_]:
    """(n,) bool, contiguous; raises ScanError."""
    if isinstance(mask, Mask):
        return mask.rows
    eligible = np.ascontiguousarray(mask)
    if eligible.dtype != np.bool_ or eligible.ndim != 1:
        raise ScanError(f"the mask is {eligible.dtype} {eligible.shape}; expected bool (n,)")
    return eligible
