"""Recognises arrays of eligible rows that are passed repeatedly, and keeps masks of them."""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from gpq.scan.mask import Mask

MOST = 4  # arrays that are remembered
# Samples distinguish most arrays without reading them whole. Before use, whole arrays are compared.
WINDOW, WINDOWS = 256, 16  # rows of a window, and number of windows of a sample
WORD = 8  # rows of a word
TOGETHER = 1 << 17  # words compared at a time

Sample = tuple[int, bytes]


class Repeats:
    """Keeps a mask of each array that is passed twice, with few other arrays in between.

    A copy takes one byte for each row, and more once the mask is prepared. All masks together have
    at most as many eligible rows as there are codes.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[Sample, None] = OrderedDict()
        self._kept: OrderedDict[Sample, Mask] = OrderedDict()
        self._changing = threading.Lock()

    def masks(self) -> list[Mask]:
        """Returns the masks that are kept, the last used last."""
        with self._changing:
            return list(self._kept.values())

    def find(self, rows: NDArray[np.bool_], codes: int) -> Mask | None:
        """Returns the mask of exactly these rows (n,) bool, from the third call on.

        ``codes``: number of codes in the scanner.
        """
        sample = _sample(rows)
        with self._changing:
            kept = self._kept.pop(sample, None)
            if kept is not None:
                self._kept[sample] = kept  # moves it to the end, as the last used
            elif not self._seen_before(sample):
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
            for place, (other, other_mask) in enumerate(used_last):
                codes -= int(np.count_nonzero(other_mask.rows))
                if codes < 0 or place >= MOST:
                    del self._kept[other]

    def _seen_before(self, sample: Sample) -> bool:
        seen = sample in self._seen
        self._seen.pop(sample, None)
        self._seen[sample] = None
        if len(self._seen) > MOST:
            self._seen.popitem(last=False)
        return seen


def _sample(rows: NDArray[np.bool_]) -> Sample:
    whole = rows[: len(rows) // WINDOW * WINDOW].reshape(-1, WINDOW)
    return len(rows), whole[:: len(whole) // WINDOWS + 1].tobytes()


def _equal(rows: NDArray[np.bool_], others: NDArray[np.bool_]) -> bool:
    """Compares eight rows at a time, and stops at the first block that differs."""
    if len(rows) != len(others):
        return False
    whole = len(rows) // WORD * WORD
    words, other_words = rows[:whole].view(np.uint64), others[:whole].view(np.uint64)
    return np.array_equal(rows[whole:], others[whole:]) and all(
        np.array_equal(words[first : first + TOGETHER], other_words[first : first + TOGETHER])
        for first in range(0, len(words), TOGETHER)
    )
