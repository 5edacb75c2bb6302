"""Keeps, for selections that searches use, which rows of the index belong to them.

A mask shows the images as of some change of the feed. A search applies the later changes to its
hits (``exact``); when they become many, they are applied to the mask.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpq.scan import Mask
from service.concurrency import wait_budget
from service.database.feed import FeedTable
from service.database.fields import FieldTable
from service.database.records import Change, Resolved
from service.errors import ClientGone, MaskOutdated, ModelChanged, Unavailable, WaitedTooLong
from service.filters.selection import Selection
from service.index.follower import FeedFollower
from service.index.index import Index

UPDATE_AFTER = 600  # changes that searches apply themselves
# How many images a filter field may leave; with more, all metadata are read as quickly.
LEAST_CANDIDATES, CANDIDATES_SHARE, MOST_CANDIDATES = 1000, 20, 50_000
FAR_BEHIND = 5000  # changes behind the feed, from which on a search builds a new mask
BUILD_SECONDS, BUILD_TRIES = 60, 4
MOST_MASKS, SELECTION_BYTES = 1000, 4096  # masks, and memory of one beside its rows
MOST_TRIED = 4  # conditions of a filter
BYTES_PER_CODE = 10  # of a prepared code, beside the code itself


@dataclass(frozen=True)
class KeptMask:
    """The rows of an index that belong to a selection.

    ``index``: of the model that was searched. ``mark``: the last change that the mask reflects.
    ``history``: of the feed, as in ``FeedFollower``.
    """

    index: Index
    mask: Mask
    mark: int
    history: int

    @cached_property
    def count(self) -> int:
        """The number of rows that belong to the selection."""
        return int(np.count_nonzero(self.mask.rows))

    @property
    def bytes(self) -> int:
        return self.mask.rows.nbytes + self.count * (self.index.code_bytes + BYTES_PER_CODE)


class Masks:
    """The masks of the selections that were used last. ``most_bytes``: of all masks together, with
    the codes that engines prepare for them; one mask may have more."""

    def __init__(
        self, feed: FeedTable, fields: FieldTable, follower: FeedFollower, most_bytes: int
    ) -> None:
        self.feed, self.fields, self.follower = feed, fields, follower
        self.most_bytes = most_bytes
        self._kept: OrderedDict[Selection, KeptMask] = OrderedDict()
        self._bytes = 0
        self._changing = threading.Lock()
        self._building = threading.Lock()  # one reads all metadata at a time

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, selection: Selection, model: str) -> KeptMask:
        """Returns the mask of a selection for the index of a model.

        The first time, reads the metadata of all images, or of those that a filter field leaves.
        Raises ModelChanged if the index is not loaded here, MaskOutdated, WaitedTooLong,
        ClientGone, Unavailable, SQLAlchemyError.
        """
        if kept := self.current(selection, model):
            return kept
        seconds = min(max(0.0, wait_budget.current().left), threading.TIMEOUT_MAX)
        if not self._building.acquire(timeout=seconds):
            raise WaitedTooLong
        try:
            if kept := self.current(selection, model):
                return kept
            for _ in range(BUILD_TRIES):
                kept = self._build(selection, model)
                if kept.history == self.follower.history:
                    self._keep(selection, kept)
                    return kept
            raise MaskOutdated
        finally:
            self._building.release()

    def forget(self, selection: Selection, kept: KeptMask) -> None:
        """Drops a mask that is too far behind the feed, unless a newer one is kept."""
        with self._changing:
            if self._kept.get(selection) is kept:
                self._drop(selection)

    def update(self, selection: Selection, kept: KeptMask, resolved: Resolved) -> KeptMask:
        """Returns the mask with the changes since ``kept.mark``, as far as the index has them."""
        reached = self.follower.applied  # read before the index, which has all changes up to it
        if self.follower.indexes.get(kept.index.model) is not kept.index:
            return kept  # it was compacted, and follows the feed no more
        changes = [change for change in resolved.changes if change.seq <= reached]
        if not changes:
            return kept
        other = self._kept.get(selection)  # another search may have done it
        if other is not None and other.index is kept.index and other.mark >= changes[-1].seq:
            return other
        rows = np.zeros(kept.index.rows, dtype=np.bool_)
        rows[: len(kept.mask.rows)] = kept.mask.rows
        changed = {change.seq for change in changes if change.codes}
        changed |= {change.describes for change in changes if change.describes is not None}
        inside = [seq for seq in changed if has(selection, resolved, seq)]
        rows[kept.index.rows_of(changed.difference(inside))] = False
        rows[kept.index.rows_of(inside)] = True
        rows[kept.index.rows_of(c.removes for c in changes if c.removes is not None)] = False
        updated = KeptMask(kept.index, Mask(rows), changes[-1].seq, kept.history)
        self._keep(selection, updated)
        return updated

    def total(self, selection: Selection, kept: KeptMask, resolved: Resolved) -> int:
        """Counts the images of a selection; ``resolved``: all changes since ``kept.mark``."""
        rows = kept.mask.rows
        changed = touched(resolved.changes)
        before = kept.index.rows_of(changed)
        before = before[before < len(rows)]
        inside = sum(has(selection, resolved, seq) for seq in changed)
        return kept.count - int(np.count_nonzero(rows[before])) + inside

    def current(self, selection: Selection, model: str) -> KeptMask | None:
        """Returns a mask that is kept, for the rows of the index as it is now; None if there is
        none, or it is far behind the feed. Raises ModelChanged."""
        with self._changing:
            kept = self._kept.get(selection)
            index = self.follower.indexes.get(model)  # read now: a mask never goes back to an older
            if index is None:
                raise ModelChanged(f"the codes of model {model} are not loaded here")
            if kept is None or kept.history != self.follower.history:
                return None
            if self.follower.applied - kept.mark > FAR_BEHIND:
                return None
            self._kept.move_to_end(selection)
        if kept.index is index:
            return kept
        # It was compacted, or the model is another one; the images are the same.
        seqs = kept.index.seqs(np.flatnonzero(kept.mask.rows))
        moved = KeptMask(index, Mask(index.mask(seqs)), kept.mark, kept.history)
        self._keep(selection, moved)
        return moved

    def _build(self, selection: Selection, model: str) -> KeptMask:
        history, applied = self.follower.history, self.follower.applied
        index = self.follower.indexes.get(model)
        if index is None:
            raise ModelChanged(f"the codes of model {model} are not loaded here")
        seqs, head = self._by_fields(selection) or self._by_all(selection)
        return KeptMask(index, Mask(index.mask(seqs)), min(applied, head), history)

    def _by_fields(self, selection: Selection) -> tuple[NDArray[np.int64], int] | None:
        """Returns the seqs of a selection, and the change that they reflect at least, by a filter
        field; None if none helps."""
        bounds = selection.filter.bounds if selection.filter else ()
        share = len(self.follower.index) // CANDIDATES_SHARE
        most = min(max(LEAST_CANDIDATES, share), MOST_CANDIDATES)
        for bound in bounds[:MOST_TRIED]:
            found = self.fields.candidates(bound, most)
            if found is not None and found.head - found.seq <= UPDATE_AFTER:
                return _seqs(selection, found.rows), found.seq
        return None

    def _by_all(self, selection: Selection) -> tuple[NDArray[np.int64], int]:
        """Does the same by the metadata of all images."""
        with self.feed.described() as described:
            parts = [_seqs(selection, part) for part in watched(described.parts)]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts]), described.head

    def _keep(self, selection: Selection, kept: KeptMask) -> None:
        live, history = set(map(id, self.follower.indexes.values())), self.follower.history
        with self._changing:
            other = self._kept.get(selection)
            if other and id(other.index) in live and id(kept.index) not in live:
                return
            self._drop(selection)
            self._kept[selection] = kept
            self._bytes += _bytes(selection, kept)
            # An index that was replaced would stay in memory as long as a mask of it.
            for each, old in [*self._kept.items()]:
                if each != selection and (id(old.index) not in live or old.history != history):
                    self._drop(each)
            while len(self._kept) > 1 and (
                self._bytes > self.most_bytes or len(self._kept) > MOST_MASKS
            ):
                self._drop(next(iter(self._kept)))

    def _drop(self, selection: Selection) -> None:
        if kept := self._kept.pop(selection, None):
            self._bytes -= _bytes(selection, kept)


def _bytes(selection: Selection, kept: KeptMask) -> int:
    """Returns the memory of a mask and its selection, whose parsed form takes some times its
    text."""
    text = len(selection.filter.text) if selection.filter else 0
    return kept.bytes + 8 * text + SELECTION_BYTES


def watched(
    parts: Iterator[list[tuple[Any, ...]]],
    what: str = "filter",
    advice: str = "use fewer conditions, or declare a filter field",
) -> Iterator[list[tuple[Any, ...]]]:
    """Yields the parts. Raises ClientGone when nobody waits any more, Unavailable after
    BUILD_SECONDS; the message says that ``what`` takes longer, and gives ``advice``."""
    until, work = time.monotonic() + BUILD_SECONDS, wait_budget.current().work
    for part in parts:
        if not work.wanted():
            raise ClientGone
        if time.monotonic() > until:
            raise Unavailable(
                f"{what}: it takes more than {BUILD_SECONDS} seconds to look at all metadata; "
                f"{advice}"
            )
        yield part


def _seqs(selection: Selection, rows: Iterable[tuple[Any, ...]]) -> NDArray[np.int64]:
    """Returns the seqs of the rows (seq, id, metadata) that belong to a selection."""
    return np.array([seq for seq, id, text in rows if selection.has(id, text)], dtype=np.int64)


def touched(changes: Iterable[Change]) -> set[int]:
    """Returns the seqs of all images that changes added, removed or described."""
    return {
        seq
        for change in changes
        for seq in (change.seq, change.removes, change.describes)
        if seq is not None
    }


def has(selection: Selection, resolved: Resolved, seq: int) -> bool:
    """Returns whether a seq is that of an image that was resolved and belongs to a selection."""
    return seq in resolved.images and selection.has(*resolved.images[seq])
