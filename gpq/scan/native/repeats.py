"""Arrays of eligible rows that come again, as masks for many searches."""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from gpq.scan.mask import Mask

MOST = 4  # arrays that are remembered
# A sample tells most arrays apart without reading them; before use all is compared.
WINDOW, WINDOWS = 256, 16  # rows
WORD = 8  # rows
TOGETHER = 1 << 17  # words compared at a time

Sample = tuple[int, bytes]


class Repeats:
    """Of an array that comes twice, with few others between, there is a copy. It takes a byte a
    row, and later as much as a ``Mask`` does: all together they have at most as many eligible
    rows as there are codes."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Sample, None] = OrderedDict()
        self._kept: OrderedDict[Sample, Mask] = OrderedDict()
        self._changing = threading.Lock()

    def masks(self) -> list[Mask]:
        with self._changing:
            return list(self._kept.values())

    def find(self, rows: NDArray[np.bool_], codes: int) -> Mask | None:
        """Of exactly these rows (n,) bool, from the third time on. codes: how many there are."""
        sample = _sample(rows)
        with self._changing:
            kept = self._kept.pop(sample, None)
            if kept is not None:
                self._kept[sample] = kept  # the last one used
            elif not self._came(sample):
                return None
        if kept is not None and _equal(kept.rows, rows):
            return kept
        self._keep(sample, Mask(rows), codes)
        return None

    def _keep(self, sample: Sample, mask: Mask, codes: int) -> None:
        with self._changing:
            self._kept.pop(sample, None)
            self._kept[sample] = mask
            used_last = reversed(list(self._kept.items()))
            for place, (other, each) in enumerate(used_last):
                codes -= int(np.count_nonzero(each.rows))
                if codes < 0 or place >= MOST:
                    del self._kept[other]

    def _came(self, sample: Sample) -> bool:
        came = sample in self._seen
        self._seen.pop(sample, None)
        self._seen[sample] = None
        if len(self._seen) > MOST:
            self._seen.popitem(last=False)
        return came


def _sample(rows: NDArray[np.bool_]) -> Sample:
    whole = rows[: len(rows) // WINDOW * WINDOW].reshape(-1, WINDOW)
    return len(rows), whole[:: len(whole) // WINDOWS + 1].tobytes()


def _equal(rows: NDArray[np.bool_], others: NDArray[np.bool_]) -> bool:
    """Reads no more of two that differ than it must, and eight rows at a time."""
    if len(rows) != len(others):
        return False
    whole = len(rows) // WORD * WORD
    words, other_words = rows[:whole].view(np.uint64), others[:whole].view(np.uint64)
    return np.array_equal(rows[whole:], others[whole:]) and all(
        np.array_equal(words[first : first + TOGETHER], other_words[first : first + TOGETHER])
        for first in range(0, len(words), TOGETHER)
    )
