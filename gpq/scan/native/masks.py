"""Masks that cannot change, remembered by the positions they make eligible."""

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import c_void_p

import numpy as np
from numpy.typing import NDArray

from gpq.scan.native.segment import Segment

Eligible = tuple[NDArray[np.uint64], int]


class Masks:
    """What is remembered goes with its mask, or with its segment."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.WeakKeyDictionary[Segment, Eligible]] = {}

    def of(self, mask: NDArray[np.bool_], segments: Sequence[Segment]) -> list[Eligible] | None:
        """Of each segment; nothing for a mask that can be written to, or is a view of one."""
        if mask.flags.writeable or mask.base is not None:
            return None
        key = id(mask)
        if key not in self._known:
            self._known[key] = weakref.WeakKeyDictionary()
            weakref.finalize(mask, self._known.pop, key, None)
        known = self._known[key]
        for segment in segments:
            if segment not in known:
                known[segment] = segment.eligible(mask)
        return [known[segment] for segment in segments]


def pointers(listed: list[Eligible] | None) -> ctypes.Array[c_void_p] | None:
    """For the kernel."""
    if listed is None:
        return None
    return (c_void_p * len(listed))(*(words.ctypes.data for words, _ in listed))
