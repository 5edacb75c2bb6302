"""Keeps the values that fields have, by row of the index, to count them over a selection.

A column follows the feed as masks do: it shows the images as of some change, counts apply the later
changes themselves, and when they become many, they are applied to the column.
"""

import threading
import time
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.concurrency import wait_budget
from service.database.feed import FeedTable
from service.database.records import Resolved
from service.errors import InvalidFilter, MaskOutdated, ModelChanged, WaitedTooLong
from service.filters.masks import FAR_BEHIND, UPDATE_AFTER, KeptMask, has, touched, watched
from service.filters.selection import Selection
from service.filters.values import Key, Metadata, distinct, keys_of
from service.index.follower import FeedFollower
from service.index.index import Index

MOST_COLUMNS = 100
MOST_VALUES, MOST_PAIRS = 10_000, 20_000_000  # different ones of a field, and in all
LONGEST_VALUE = 200  # characters; longer strings are not counted
SHOWN_VALUES = 100  # the most frequent ones
BUILD_TRIES = 4
REFUSED_SECONDS = 60.0  # how long it is remembered that a field has too many values
PAIR_BYTES, VALUE_BYTES = 12, 1000  # memory of a row with a value, and of a value, at most


@dataclass(frozen=True)
class Column:
    """The values of a field.

    ``rows`` (n,) int64 and ``numbers`` (n,) int32: pairs of a row of the index and the number of a
    value that its image has. ``values``: by number, with the key that equal values share.
    ``index``, ``mark``, ``history``: as in ``KeptMask``.
    """

    index: Index
    rows: NDArray[np.int64]
    numbers: NDArray[np.int32]
    values: dict[Any, Any] = field(repr=False)
    mark: int
    history: int

    @property
    def bytes(self) -> int:
        return PAIR_BYTES * len(self.rows) + VALUE_BYTES * len(self.values)


@dataclass(frozen=True)
class Facet:
    """A field whose values are counted. ``prefix``: of the ids of the images that count."""

    name: str
    prefix: str


@dataclass(frozen=True)
class ValueCount:
    """A value of a field, and how many images have it."""

    value: Any
    count: int


class Columns:
    """The columns of the fields that were counted last. ``most_bytes``: of all together; one may
    have more.

    Each key with a prefix has columns of its own, so that images beyond the prefix have no effect
    on its counts, nor on whether a field has too many values.
    """

    def __init__(self, feed: FeedTable, follower: FeedFollower, most_bytes: int) -> None:
        self.feed, self.follower, self.most_bytes = feed, follower, most_bytes
        self._kept: OrderedDict[Facet, Column] = OrderedDict()
        self._refused: dict[Facet, tuple[float, InvalidFilter]] = {}  # and until when
        self._changing = threading.Lock()
        self._building = threading.Lock()  # one reads all metadata at a time

    def current(self, facets: Sequence[Facet], model: str) -> list[Column] | None:
        """Returns the columns of facets, for the index of a model as it is now; None if one is not
        kept, or is far behind the feed. Raises ModelChanged."""
        index = self._index(model)
        with self._changing:
            kept = [self._kept.get(facet) for facet in facets]
            columns = [each for each in kept if each is not None and self._is_current(each, index)]
            if len(columns) < len(facets):
                return None
            for facet in facets:
                self._kept.move_to_end(facet)
            return columns

    def find(self, facets: Sequence[Facet], model: str) -> list[Column]:
        """Returns the columns of facets; the first time, reads the metadata of all images, once for
        all of them.

        Raises InvalidFilter if a field has too many different values, ModelChanged, MaskOutdated,
        WaitedTooLong, ClientGone, Unavailable, SQLAlchemyError.
        """
        seconds = min(max(0.0, wait_budget.current().left), threading.TIMEOUT_MAX)
        if not self._building.acquire(timeout=seconds):
            raise WaitedTooLong
        try:
            for _ in range(BUILD_TRIES):
                if (columns := self.current(facets, model)) is not None:
                    return columns
                self._build(facets, model)
            raise MaskOutdated
        finally:
            self._building.release()

    def count(
        self, facet: Facet, column: Column, selection: Selection, kept: KeptMask | None
    ) -> list[ValueCount]:
        """Counts the values of a field over a selection at one moment; the most frequent first.

        ``kept``: the mask of the selection, unless it is everything. Raises MaskOutdated.
        """
        mark = column.mark if kept is None else min(column.mark, kept.mark)
        resolved = self.feed.resolve([], mark)
        with self._changing:
            index = self.follower.indexes.get(column.index.model)
            if index is None or not self._is_current(column, index):
                self._kept.pop(facet, None)
        fits = kept is None or (kept.index is column.index and kept.history == column.history)
        if not (resolved.complete and fits and column.history == self.follower.history):
            raise MaskOutdated
        changed = touched(resolved.changes)
        stale = column.index.rows_of(changed)  # before the rows are counted, which grow
        counted = np.zeros(column.index.rows, dtype=np.bool_)
        if kept is None:
            counted[:] = True
        else:
            counted[: len(kept.mask.rows)] = kept.mask.rows
        counted[stale] = False
        found = np.bincount(column.numbers[counted[column.rows]], minlength=len(column.values))
        counts = Counter(dict(zip(column.values, found.tolist(), strict=True)))
        values, keys = dict(column.values), keys_of(facet.name, "facets")
        for seq in changed:
            if has(selection, resolved, seq):
                for key, value in _values(Metadata(resolved.images[seq][1]), keys):
                    values.setdefault(key, value)
                    counts[key] += 1
        if len(resolved.changes) > UPDATE_AFTER:
            self._update(facet, column, resolved)
        order = sorted((key for key in counts if counts[key]), key=lambda k: (-counts[k], str(k)))
        return [ValueCount(values[key], counts[key]) for key in order[:SHOWN_VALUES]]

    def _index(self, model: str) -> Index:
        index = self.follower.indexes.get(model)
        if index is None:
            raise ModelChanged(f"the codes of model {model} are not loaded here")
        return index

    def _is_current(self, column: Column, index: Index) -> bool:
        near = self.follower.applied - column.mark <= FAR_BEHIND
        return near and column.index is index and column.history == self.follower.history

    def _build(self, facets: Sequence[Facet], model: str) -> None:
        """Reads the columns that are missing, in one pass."""
        history, applied = self.follower.history, self.follower.applied
        index = self._index(model)
        missing = [each for each in facets if self.current([each], model) is None]
        for facet in missing:
            until, error = self._refused.get(facet, (0.0, None))
            if error is not None and time.monotonic() < until:
                raise error
        parts = [(_Pairs(facet.name, {}), keys_of(facet.name, "facets")) for facet in missing]
        with self.feed.described() as described:
            for rows in watched(described.parts, "facets", "name fewer fields"):
                for seq, id, text in rows:
                    metadata = Metadata(text)
                    for facet, (pairs, keys) in zip(missing, parts, strict=True):
                        if id.startswith(facet.prefix):
                            self._add(facet, pairs, seq, metadata, keys)
        for facet, (pairs, _) in zip(missing, parts, strict=True):
            mark = min(applied, described.head)
            column = _column(index, *pairs.arrays(), pairs.values, mark, history)
            if history == self.follower.history:
                self._keep(facet, column)

    def _add(self, facet: Facet, pairs: "_Pairs", seq: int, metadata: Metadata, keys: Key) -> None:
        """Raises InvalidFilter, also for the next requests for a while, so that they don't read all
        metadata to find the same."""
        try:
            pairs.add(seq, metadata, keys)
        except InvalidFilter as error:
            if len(self._refused) >= MOST_COLUMNS:
                self._refused.clear()
            self._refused[facet] = time.monotonic() + REFUSED_SECONDS, error
            raise

    def _update(self, facet: Facet, column: Column, resolved: Resolved) -> None:
        """Keeps the column with the changes since its mark, as far as the index has them."""
        reached, keys = self.follower.applied, keys_of(facet.name, "facets")
        changes = [change for change in resolved.changes if change.seq <= reached]
        kept = self._kept.get(facet)
        if kept is not column or not changes:  # another search may have done it
            return
        changed = touched(changes)
        stale = np.isin(column.rows, column.index.rows_of(changed))
        pairs = _Pairs(facet.name, dict(column.values))
        try:
            for seq in sorted(changed):
                if seq in resolved.images and resolved.images[seq][0].startswith(facet.prefix):
                    pairs.add(seq, Metadata(resolved.images[seq][1]), keys)
        except InvalidFilter:  # perhaps no image has some of the values any more
            with self._changing:
                self._kept.pop(facet, None)
            return
        fresh = _column(column.index, *pairs.arrays(), pairs.values, 0, 0)
        updated = Column(
            column.index,
            np.concatenate([column.rows[~stale], fresh.rows]),
            np.concatenate([column.numbers[~stale], fresh.numbers]),
            pairs.values,
            changes[-1].seq,
            column.history,
        )
        self._keep(facet, updated)

    def _keep(self, facet: Facet, column: Column) -> None:
        live = set(map(id, self.follower.indexes.values()))
        with self._changing:
            other = self._kept.pop(facet, None)
            newer = other and other.index is column.index and other.mark > column.mark
            self._kept[facet] = other if other is not None and newer else column
            # An index that was replaced would stay in memory as long as a column of it.
            for each, old in [*self._kept.items()]:
                if id(old.index) not in live:
                    del self._kept[each]
            while len(self._kept) > 1 and (
                len(self._kept) > MOST_COLUMNS
                or sum(each.bytes for each in self._kept.values()) > self.most_bytes
            ):
                self._kept.popitem(last=False)


class _Pairs:
    """Collects pairs of a seq and the number of a value. ``values``: as in ``Column``."""

    def __init__(self, name: str, values: dict[Any, Any]) -> None:
        self.name, self.values = name, values
        self._number = {key: number for number, key in enumerate(values)}
        self._seqs, self._numbers = array("q"), array("i")

    def add(self, seq: int, metadata: Metadata, keys: Key) -> None:
        """Raises InvalidFilter if the field has too many values."""
        for key, value in _values(metadata, keys):
            number = self._number.setdefault(key, len(self._number))
            if number == MOST_VALUES or len(self._seqs) == MOST_PAIRS:
                limit = f"{MOST_VALUES:,} different values or {MOST_PAIRS:,} in all"
                raise InvalidFilter(f"facets: {self.name} has more than {limit}, too many to count")
            self.values.setdefault(key, value)
            self._seqs.append(seq)
            self._numbers.append(number)

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        return np.frombuffer(self._seqs, np.int64), np.frombuffer(self._numbers, np.int32)


def _values(metadata: Metadata, keys: Key) -> Iterable[tuple[Any, Any]]:
    for key, value in distinct(metadata.field(keys).found):
        if type(value) is not str or len(value) <= LONGEST_VALUE:
            yield key, value


def _column(
    index: Index,
    seqs: NDArray[np.int64],
    numbers: NDArray[np.int32],
    values: dict[Any, Any],
    mark: int,
    history: int,
) -> Column:
    """Returns a column of the pairs whose seqs, which ascend, are in the index."""
    different = np.unique(seqs)
    rows = np.flatnonzero(index.mask(different))
    known = np.isin(seqs, index.seqs(rows))
    rows_of_pairs = rows[np.searchsorted(index.seqs(rows), seqs[known])]
    return Column(index, rows_of_pairs, numbers[known], values, mark, history)
