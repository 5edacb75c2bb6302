"""Holds the perceptual hashes of all images in memory, and follows the database."""

import threading
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpq.pixels.perceptual import HASH_BYTES
from service.copies.hashes import CODEBOOKS
from service.database.copies import CopyTable
from service.database.copy_records import CopyRow
from service.database.records import Change
from service.index.follower import FeedFollower
from service.index.index import Codes, Index

NOTHING = CopyRow(0, 0, None)
NAME = "pdq"  # takes the place of a model's id
PAGE = 10_000  # hashes read at a time
SPARE_SHARE, SPARE = 1.5, 10_000  # hashes of deleted images that are kept, beside those that count


class CopyIndex:
    """The hashes, by their numbers in the database. Hashes of deleted images stay until a search
    meets them (``forget``), or they become many."""

    def __init__(self, table: CopyTable, follower: FeedFollower, engine: str) -> None:
        self.table, self.follower, self.engine = table, follower, engine
        self._index = self._new()
        self._last, self._history = NOTHING, follower.history
        self.restarts = 0  # how often all hashes were read again
        self._following = threading.Lock()

    def __len__(self) -> int:
        return len(self._index)

    def catch_up(self) -> Index:
        """Returns an index that has all hashes that were stored before this call.

        Raises SQLAlchemyError.
        """
        with self._following:
            if self._history != self.follower.history:  # the database may have another past
                self._begin_again()
            while True:
                rows = self.table.since(self._last.number, PAGE)
                if self._last.number and (not rows or rows[0] != self._last):
                    if not self._is_deleted(rows):
                        self._begin_again()
                        continue
                elif self._last.number:
                    rows = rows[1:]
                if not rows:
                    return self._index
                usable = [(row.number, row.hash) for row in rows if row.hash is not None]
                if self._last.number == 0:
                    self._index = self._new(Codes.gather([usable], HASH_BYTES))
                else:
                    self._index.apply([Change(n, None, {NAME: hash}) for n, hash in usable])
                self._last = rows[-1]

    def _is_deleted(self, rows: Sequence[CopyRow]) -> bool:
        """Returns whether the last row is missing because its image is gone, and not because the
        database was restored to an older state, where its number may be another image's."""
        if rows and rows[0].number == self._last.number:
            return False
        return self.table.newest() >= self._last.number

    def forget(self, numbers: Iterable[int]) -> None:
        """Removes the hashes of images that are gone."""
        with self._following:
            self._index.apply([Change(0, number, {}) for number in numbers])

    def compact(self, hashed: int) -> None:
        """Reads all hashes again if far more are in memory than the ``hashed`` ones that count."""
        if len(self._index) > SPARE_SHARE * hashed + SPARE:
            with self._following:
                self._begin_again()
            self.catch_up()

    def _begin_again(self) -> None:
        self._index, self._last, self._history = self._new(), NOTHING, self.follower.history
        self.restarts += 1

    def _new(self, codes: Codes | None = None) -> Index:
        return Index(NAME, CODEBOOKS, self.engine, codes)


def within(
    index: Index, tables: NDArray[np.float32], distance: int, most: int
) -> tuple[list[list[tuple[int, int]]], bool]:
    """Returns the hashes within a distance of each look-up table (T,CODEBOOKS,K), the nearest
    first: lists of (number, distance). The bool says whether they are all; of each table ``most``
    are returned at most."""
    k = min(64, most)
    while True:
        found = index.search(tables, k)
        full = [len(each) == k and each[-1][1] >= -distance for each in found]
        if not any(full) or k == most:
            near = [
                [(n, round(-score)) for n, score in each if score >= -distance] for each in found
            ]
            return near, not any(full)
        k = min(8 * k, most)


def nearest(found: Sequence[Sequence[tuple[int, int]]]) -> dict[int, tuple[int, int]]:
    """Merges what the turns of one image found: the smallest distance and its turn, by number."""
    best: dict[int, tuple[int, int]] = {}
    for turn, hits in enumerate(found):
        for number, distance in hits:
            if number not in best or distance < best[number][0]:
                best[number] = distance, turn
    return best


def _near(found: Sequence[tuple[int, float]], distance: int) -> list[tuple[int, int]]:
    return [(number, round(-score)) for number, score in found if score >= -distance]
