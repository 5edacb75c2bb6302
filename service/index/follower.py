"""Follows the database's feed: applies this process's writes at once, others' within moments.

A reader asks for the changes after the last number it has seen. It misses nothing, because a
reader that has seen number n has been shown every smaller number that will ever be visible. Proof:

1. A number is assigned only in a write transaction (``Database.transaction``). All write
   transactions, whatever their process, exclude each other from before their first number is
   assigned until their changes are visible: on SQLite by BEGIN IMMEDIATE, which admits one writer
   to a file; on Postgres by an advisory lock, which a transaction releases only after it is
   marked as committed or rolled back.
2. Numbers are assigned in ascending order, one by one, and a visible number is never reused:
   AUTOINCREMENT on SQLite; on Postgres a sequence with CACHE 1, which reserves none for a session.
3. So all numbers of a transaction are greater than those of every transaction that held the lock
   before it (1, 2), and transactions become visible in that order (1).
4. A reader's statement sees the changes of all transactions visible when it begins. If n is among
   them, so are the smaller numbers (3); numbers that are missing were rolled back.

Without the lock on Postgres, step 3 fails: a transaction may be assigned 7, another one 8 and
commit it, a reader pass on to 8, and 7 be committed afterwards, unseen.

This holds within one history. A database that was restored to an older state, or whose standby
took over without the last commits, continues with another history. So a reader also asks for the
last change it has seen: if that change is missing, or has another time, it reloads everything. So
does a reader that is behind the newest pruned change, whose number the pruning transaction stores
in the database.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service.concurrency.periodic import PeriodicThread
from service.database.records import BEGINNING, Changes, Mark, StoredModel, active_of
from service.database.store import Store
from service.errors import ModelChanged
from service.index import index_file
from service.index.heartbeat import HEARTBEAT_GAP_SECONDS, Heartbeat
from service.index.index import Codes, Index, Pairs, checksum
from service.settings import DATABASE_STALL_SECONDS, FEED_POLL_SECONDS

NewIndex = Callable[[str, Codes | None], Index]  # takes a model id
NO_MODEL = "(none)"
SAVE_SECONDS = 3600  # between writings of GPQ_INDEX_FILE
log = logging.getLogger("gpq.service")


class FeedFollower:
    """Keeps the indexes of some models up to date with the feed, and reports it to the replicas.

    ``model``: the model whose index is loaded first. ``file``: keeps its codes for the next start.
    ``search_p99``: returns how long searches take here.
    """

    def __init__(
        self,
        store: Store,
        new_index: NewIndex,
        model: str,
        file: Path | None = None,
        search_p99: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.store, self.file = store, file
        self.heartbeat = Heartbeat(store.replicas, search_p99)
        self.model = model  # the active model, as far as this process holds its index
        self.missing_model: str | None = None  # the active model, if its index is missing here
        self._new_index = new_index
        self.indexes: Mapping[str, Index] = {model: new_index(model, None)}  # by model id
        self._last = BEGINNING  # the last change applied
        self.history = 0  # counts reloads, after which the feed may be another one
        self._catching_up = threading.Lock()
        self._answered_at = time.monotonic()
        self._failing = False
        self._saved_at, self._saved = time.monotonic(), (model, BEGINNING)
        self._thread = PeriodicThread(
            "feed", self._follow, FEED_POLL_SECONDS, at_once=True, wait=self._wait
        )

    @property
    def index(self) -> Index:
        """The index of the active model."""
        return self.indexes[self.model]

    @property
    def applied(self) -> int:
        """The feed number that the indexes have reached."""
        return self._last.seq

    @property
    def down(self) -> bool:
        """Whether the database failed when last asked, or has not answered for long."""
        silent = time.monotonic() - self._answered_at > DATABASE_STALL_SECONDS
        return self._failing or silent

    def load(self) -> None:
        """Fills the first index from the file, or from one snapshot of the database."""
        with self._catching_up:
            if not self._load_file():
                self._load()
        # A process that waits for all replicas and does not see this heartbeat asked before it;
        # the change it waits for was committed earlier still, so catching up now applies it.
        self.heartbeat.beat(self.applied, self.indexes)
        self.catch_up()

    def load_model(self, model: str) -> None:
        """Loads the codes of another, complete model; its index is followed from then on.

        Searches and writes continue meanwhile.
        """
        with self.store.feed.snapshot(model) as snapshot:
            head, codes = snapshot.head, self._gather(model, snapshot.parts)
        index = self._new_index(model, codes)
        with self._catching_up:
            # The index may be ahead of the others; a change applied twice has no effect.
            while head.seq < self.applied:
                changes = self.store.feed.changes_after(head.seq)
                if not _follow_on(changes, head):
                    return  # the next call loads it again
                index.apply(changes.page)
                head = Mark(changes.page[-1].seq, changes.page[-1].created)
            self.indexes = {**self.indexes, model: index}

    def drop_model(self, model: str) -> None:
        """Drops the index of a model that is not active."""
        with self._catching_up:
            self.indexes = {id: index for id, index in self.indexes.items() if id != model}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread; gives up after STOP_SECONDS if the database does not answer."""
        if self._thread.stop():
            self._save()
            self.heartbeat.leave()

    def catch_up(self, seq: int | None = None) -> None:
        """Applies everything committed before this call, or everything up to ``seq``.

        Raises ModelChanged, and applies nothing, if the index of the active model is missing here;
        SQLAlchemyError if the database does not answer.
        """
        with self._catching_up:
            while seq is None or self.applied < seq:
                if not self._apply_page():
                    return

    def checksums(self) -> tuple[int, str, str]:
        """Returns a feed number, and the checksums of the index and of the database at that number.

        Raises ModelChanged if the index of the active model is missing here, SQLAlchemyError.
        """
        with self._catching_up:
            while True:
                while self._apply_page():
                    pass
                with self.store.feed.snapshot(self.model) as snapshot:
                    self._follow_active(snapshot.models)
                    if snapshot.head == self._last:  # nobody wrote in between
                        return self.applied, self.index.checksum(), checksum(snapshot.parts)

    def _apply_page(self) -> bool:
        """Applies the next changes. Returns False if there are none."""
        changes = self.store.feed.changes_after(self._last.seq)
        self._answered_at = time.monotonic()
        self._follow_active(changes.models)
        if not _follow_on(changes, self._last):
            log.warning("feed: the changes after %d are unknown; reloading", self._last.seq)
            self.history += 1
            self._load()
            self.history += 1  # whoever read the database meanwhile may have seen either
            return True
        if not changes.page:
            return False
        # Some changes lack a code of a deleted model, even if the model was added again.
        complete = {model.id for model in changes.models if model.complete}
        self.indexes = {id: index for id, index in self.indexes.items() if id in complete}
        for index in self.indexes.values():
            index.apply(changes.page)
        self._last = Mark(changes.page[-1].seq, changes.page[-1].created)
        if self.index.worth_compacting:
            self._load()
        return True

    def _load(self) -> None:
        """Replaces all indexes by a new one of the active model; ``load_model`` loads the others.

        Searches use the old index until the new one is complete.
        """
        with self.store.feed.snapshot(self.model) as snapshot:
            self._follow_active(snapshot.models)
            codes = self._gather(self.model, snapshot.parts)
        self.indexes = {self.model: self._new_index(self.model, codes)}
        self._last = snapshot.head

    def _gather(self, model: str, parts: Iterator[Pairs]) -> Codes:
        return Codes.gather(self._watched(parts), self._new_index(model, None).code_bytes)

    def _watched(self, parts: Iterator[Pairs]) -> Iterator[Pairs]:
        for part in parts:
            self._answered_at = time.monotonic()
            yield part

    def _load_file(self) -> bool:
        """Returns whether a file was loaded; catching up finds out if it fits this history."""
        if self.file is None or (found := index_file.load(self.file, self._origin())) is None:
            return False
        self._last, codes = found
        self._saved = self.model, self._last
        self.indexes = {self.model: self._new_index(self.model, codes)}
        log.info("%d codes from %s, as of change %d", len(codes.seqs), self.file, self._last.seq)
        return True

    def _save(self) -> None:
        if self.file is None or self._last == BEGINNING:
            return
        if self._saved == (self.model, self._last):
            return
        self._saved_at = time.monotonic()
        try:
            with self._catching_up:
                model, mark, codes = self.model, self._last, self.index.codes()
                origin = self._origin()
            index_file.save(self.file, origin, mark, codes)
            self._saved = model, mark
        except OSError as error:
            log.warning("%s cannot be written: %s", self.file, error)
        except SQLAlchemyError as error:
            log.warning("%s is not written, because the database fails: %s", self.file, error)

    def _origin(self) -> index_file.Origin:
        return index_file.Origin(self.store.state.identity(), self.model, self.index.code_bytes)

    def _follow_active(self, models: tuple[StoredModel, ...]) -> None:
        active = active_of(models)
        if active is None or active not in self.indexes:
            self.missing_model = active or NO_MODEL
            raise ModelChanged(f"the active model is {self.missing_model}, not {self.model}")
        if active != self.model:
            log.info("the active model is now %s", active)
        self.model, self.missing_model = active, None

    def _follow(self) -> None:
        try:
            self.catch_up()
        except Exception as error:
            self._failing = isinstance(error, SQLAlchemyError)
            raise
        self._failing = False
        self.heartbeat.beat(self.applied, self.indexes)
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self._save()

    def _wait(self) -> None:
        """Waits for the next change; only briefly if a heartbeat is due."""
        due = self.heartbeat.is_due(self.applied, self.indexes)
        self.store.database.wait(HEARTBEAT_GAP_SECONDS if due else FEED_POLL_SECONDS)


def _follow_on(changes: Changes, mark: Mark) -> bool:
    """Returns whether the changes continue the history from ``mark`` without a gap."""
    return mark.seq >= changes.pruned and (changes.last == mark or mark.seq == changes.pruned)
