"""Groups the images of the whole catalogue that are copies of each other."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from service.copies.hashes import CODEBOOKS, distance_tables
from service.copies.index import within
from service.index.index import Codes, Index

TOGETHER = 8  # hashes whose turns are searched at a time
MOST_NEIGHBOURS = 4096  # of one hash; those of many more images share it, or are near each other

Member = tuple[int, int]  # the seqs of the first image and of the member


class Families:
    """Sets of numbers below ``count`` that are joined in pairs (union-find)."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count)

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.first(one), self.first(other)))
        self._parents[second] = first

    def first(self, one: int) -> int:
        """Returns the smallest number of the set."""
        root = one
        while self._parents[root] != root:
            root = int(self._parents[root])
        while self._parents[one] != root:
            self._parents[one], one = root, int(self._parents[one])
        return root


def groups(
    seqs: Sequence[int],
    hashes: NDArray[np.uint8],
    distance: int,
    engine: str,
    done: Callable[[int], bool],
) -> list[Member]:
    """Returns the members of all groups of images whose hashes (n,HASH_BYTES) are within a distance
    of each other, turned in any way, or are joined by others that are.

    ``seqs``: of the images, ascending. ``done`` is called with the number of images that were
    compared since the last call, and says whether to go on.
    """
    different, places = np.unique(hashes, axis=0, return_inverse=True)
    index = Index("copies", CODEBOOKS, engine, Codes(np.arange(1, len(different) + 1), different))
    families = Families(len(different))
    counts = np.bincount(places, minlength=len(different))
    for begin in range(0, len(different), TOGETHER):
        part = range(begin, min(begin + TOGETHER, len(different)))
        tables = np.concatenate([distance_tables(different[n].tobytes()) for n in part])
        found, _ = within(index, tables, distance, MOST_NEIGHBOURS)
        for turn, hits in enumerate(found):
            for number, _ in hits:
                families.join(begin + turn // (len(found) // len(part)), number - 1)
        if not done(int(counts[part.start : part.stop].sum())):
            return []
    by_family: dict[int, list[int]] = {}
    for place, number in enumerate(places.ravel().tolist()):
        by_family.setdefault(families.first(number), []).append(place)
    return [
        (seqs[family[0]], seqs[place])
        for family in by_family.values()
        if len(family) > 1
        for place in family
    ]
