"""Finds exactly the hits of one moment, even while other processes write.

Ties come in order of storing. The scan ranks equal scores by row, rows are in seq order, and the
database assigns seqs in commit order (``database.feed.append``), the same for every replica.
"""

import math
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ScanError
from gpq.scan import Mask
from gpq.scan.reference import scores_of
from gpq.scan.tables import require_finite
from service.concurrency import wait_budget
from service.concurrency.batcher import Batcher
from service.database.feed import FeedTable
from service.database.records import Resolved
from service.errors import ClientGone, MaskOutdated, ModelChanged, QueryOverflow, Unavailable
from service.filters.masks import UPDATE_AFTER, KeptMask, Masks, touched
from service.filters.selection import EVERYTHING, Selection
from service.index.follower import FeedFollower
from service.index.index import Index
from service.search.cursor import LastHit
from service.search.hit import Hit
from service.telemetry import timing

SCAN_TRIES = 8
SCANNED_TOGETHER = 64  # queries
RESOLVED_TOGETHER = 10_000  # hits whose metadata are in memory at the same time
SPARE = 16  # extra hits to ask for after some hits turned out to be deleted
TOO_FAST = "images change faster than they can be searched; try again"

Found = list[tuple[int, float]]  # (seq, score), in order


@dataclass(frozen=True)
class ScanOptions:
    """The options that all queries of one batch share. ``model``: the model's id. ``selection``:
    the images to search. ``after``: the last hit before those that are wanted. ``kept``: the mask
    of the selection, unless it is everything."""

    model: str
    k: int
    min_score: float
    selection: Selection = EVERYTHING
    after: LastHit | None = None
    kept: KeptMask | None = field(default=None, compare=False)


class ExactSearch:
    """Answers queries given as look-up tables (M,K) float32, concurrent ones in batches.

    Results that score below ``min_score`` are left out. ``watch`` is called with the size of each
    batch. Searches raise ModelChanged if another model is active, and Unavailable if writers
    outrun them.
    """

    def __init__(
        self,
        feed: FeedTable,
        follower: FeedFollower,
        masks: Masks,
        watch: Callable[[int], object] = lambda n: None,
    ) -> None:
        self.feed, self.follower, self.masks = feed, follower, masks
        self._watch = watch
        self._batches: Batcher[ScanOptions, NDArray[np.float32], list[Hit]] = Batcher(
            "scan", self._scan, SCANNED_TOGETHER
        )

    def close(self) -> None:
        self._batches.close()

    def submit(
        self, options: ScanOptions, luts: Sequence[NDArray[np.float32]]
    ) -> Future[Sequence[list[Hit]]]:
        """Queues at most SCANNED_TOGETHER queries; the future holds the hits of each.

        Raises QueryOverflow.
        """
        _require_finite(luts)
        return self._batches.submit(options, luts)

    def parts(
        self, options: ScanOptions, luts: Sequence[NDArray[np.float32]]
    ) -> AsyncGenerator[Sequence[list[Hit]], None]:
        """Yields the hits of many queries, some queries at a time. Raises QueryOverflow."""
        _require_finite(luts)
        return self._batches.parts(options, luts)

    def total(self, options: ScanOptions, table: NDArray[np.float32]) -> int:
        """Counts the images of the selection that score ``min_score`` or more, at one moment.

        Blocks. Raises ModelChanged, MaskOutdated, Unavailable.
        """
        for _ in range(SCAN_TRIES):
            view = self._view(options.model, options.kept)
            any_score = view.kept is not None and options.min_score == -math.inf
            if not any_score:
                rows = view.index.rows_from(table, options.min_score, view.mask, _go_on)
            resolved = self._resolved([], view, options)
            if resolved is None:
                continue
            if view.kept is not None and any_score:
                return self.masks.total(options.selection, view.kept, resolved)
            before = np.isin(rows, view.index.rows_of(touched(resolved.changes)))
            codes = _selected(options.selection, resolved).codes
            fresh = scores(table[None], [*codes.values()])[0]
            later = np.count_nonzero(fresh >= np.float64(options.min_score))
            return int(len(rows) - np.count_nonzero(before) + later)
        raise Unavailable(TOO_FAST)

    def _scan(self, options: ScanOptions, luts: Sequence[NDArray[np.float32]]) -> list[list[Hit]]:
        self._watch(len(luts))
        most = max(1, RESOLVED_TOGETHER // options.k)
        return [
            hits
            for first in range(0, len(luts), most)
            for hits in self._search(options, luts[first : first + most])
        ]

    def _search(
        self, options: ScanOptions, tables: Sequence[NDArray[np.float32]]
    ) -> list[list[Hit]]:
        """Returns the exact hits of one moment after the search began.

        The index reflects the feed up to some number. Later changes are read from the database
        and applied to the hits of the scan.
        """
        luts, k = np.stack(tables), options.k
        after = None if options.after is None else (options.after.score, options.after.seq)
        kept = options.kept
        for _ in range(SCAN_TRIES):
            view = self._view(options.model, kept)
            with timing.stage("scan"):
                found = view.index.search(luts, k, view.mask, after)
            seqs = {seq for of_one in found for seq, _ in of_one}
            resolved = self._resolved(seqs, view, options)
            if resolved is None:
                continue
            ranked = overlay(luts, found, k, _selected(options.selection, resolved), after)
            missing = _most_missing(found, ranked, k, options)
            if kept is not None and (missing > 0 or len(resolved.changes) > UPDATE_AFTER):
                kept = self.masks.update(options.selection, kept, resolved)
            if missing <= 0:
                return [_hits(of_one, options, resolved) for of_one in ranked]
            # Let the index drop the deleted codes, and ask for more hits next time.
            self._catch_up()
            k += missing + SPARE
        raise Unavailable(TOO_FAST)

    def _resolved(
        self, seqs: Iterable[int], view: "_View", options: ScanOptions
    ) -> Resolved | None:
        """Returns the images of seqs and all changes since the view; None if the index must catch
        up first, which it has done then. Raises ModelChanged, MaskOutdated."""
        with timing.stage("db"):
            resolved = self.feed.resolve(seqs, view.mark)
        if resolved.model != options.model:
            raise ModelChanged(f"the active model is {resolved.model}, not {options.model}")
        if resolved.complete:
            return resolved
        if view.kept is not None:
            self.masks.forget(options.selection, view.kept)
            raise MaskOutdated
        self._catch_up()
        return None

    def _view(self, model: str, kept: KeptMask | None) -> "_View":
        """Returns what to scan. Raises ModelChanged, MaskOutdated."""
        if kept is not None:
            if kept.history != self.follower.history:
                raise MaskOutdated
            return _View(kept.index, kept.mark, kept)
        applied = self.follower.applied  # read before the index, which is at least as new
        index = self.follower.indexes.get(model)
        if index is None:
            raise ModelChanged(f"the codes of model {model} are not loaded here")
        return _View(index, applied)

    def _catch_up(self) -> None:
        """Raises Unavailable, not ModelChanged, so that the search is not repeated."""
        try:
            self.follower.catch_up()
        except ModelChanged as error:
            raise Unavailable(str(error)) from error


@dataclass(frozen=True)
class _View:
    """What one scan sees: rows of an index that reflects all changes up to number ``mark``.

    ``kept``: the mask of the rows, unless it sees all.
    """

    index: Index
    mark: int
    kept: KeptMask | None = None

    @property
    def mask(self) -> Mask | None:
        return None if self.kept is None else self.kept.mask


def _require_finite(luts: Sequence[NDArray[np.float32]]) -> None:
    """Raises QueryOverflow if a table cannot be scanned; others of its batch would fail with it."""
    if not luts:
        return
    try:
        require_finite(np.stack(luts))
    except ScanError as error:
        raise QueryOverflow(
            f"the model cannot compare this query with codes: {error}; search for another image"
        ) from error


def _selected(selection: Selection, resolved: Resolved) -> Resolved:
    """Returns what was resolved without the images that do not belong to the selection."""
    if selection.is_everything:
        return resolved
    # The other hits belong to the mask, and have not changed since.
    changed = touched(resolved.changes)
    images = {
        seq: image
        for seq, image in resolved.images.items()
        if seq not in changed or selection.has(*image)
    }
    codes = {seq: code for seq, code in resolved.codes.items() if seq in images}
    return replace(resolved, images=images, codes=codes)


def scores(luts: NDArray[np.float32], codes: Sequence[bytes]) -> NDArray[np.float32]:
    """Returns the scores (Q,n) float32 that a scan with ``luts`` (Q,M,K) gives these codes."""
    if not codes:
        return np.empty((len(luts), 0), dtype=np.float32)
    packed = np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), -1)
    return scores_of(packed, luts)


def overlay(
    luts: NDArray[np.float32],
    found: list[Found],
    k: int,
    resolved: Resolved,
    after: tuple[float, int] | None = None,
) -> list[Found]:
    """Returns the hits with later changes applied, in order. ``after``: as in ``Index.search``.

    If the scan returned k hits, codes that rank below the last one are unknown, so a new image
    that ranks there is left out.
    """
    fresh_scores = scores(luts, list(resolved.codes.values()))
    overlaid = []
    for of_one, row in zip(found, fresh_scores.tolist(), strict=True):
        current = {seq: score for seq, score in of_one if seq in resolved.images}
        current |= zip(resolved.codes, row, strict=True)
        ranked = sorted(current.items(), key=_rank)
        if after is not None:
            last = _rank((after[1], after[0]))
            ranked = [hit for hit in ranked if _rank(hit) > last]
        if len(of_one) == k:
            ranked = [hit for hit in ranked if _rank(hit) <= _rank(of_one[-1])]
        overlaid.append(ranked)
    return overlaid


def _go_on() -> None:
    """Raises ClientGone when nobody waits any more."""
    if not wait_budget.current().work.wanted():
        raise ClientGone


def _rank(hit: tuple[int, float]) -> tuple[float, int]:
    seq, score = hit
    return -score, seq


def _most_missing(found: list[Found], ranked: list[Found], k: int, options: ScanOptions) -> int:
    """Returns the most hits that any query lacks and a larger k could find, or less than 1."""
    return max(
        0 if len(of_one) < k or of_one[-1][1] < options.min_score else options.k - len(best)
        for of_one, best in zip(found, ranked, strict=True)
    )


def _hits(ranked: Found, options: ScanOptions, resolved: Resolved) -> list[Hit]:
    best = [(seq, score) for seq, score in ranked[: options.k] if score >= options.min_score]
    return [
        Hit(resolved.images[seq][0], score, resolved.images[seq][1], seq) for seq, score in best
    ]
