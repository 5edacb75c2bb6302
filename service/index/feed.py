"""The change feed, applied to the indexes: own writes at once, others' within moments.

A reader asks for the changes past the last number it has seen. That misses nothing,
because a reader that has seen number n has been shown every smaller one that will
ever be. Proof:

1. A number is drawn only in a write transaction (``Database.transaction``), and all of
   these, whatever their process, exclude each other from before their first number is
   drawn until their changes are visible: on SQLite by BEGIN IMMEDIATE, the only writer
   of a file; on Postgres by an advisory lock, which a transaction gives up only after
   it has been marked as committed or undone.
2. Numbers are drawn in rising order, one by one, and none twice that was ever visible:
   AUTOINCREMENT on SQLite; on Postgres a sequence, which keeps none aside for a session
   (CACHE 1).
3. So all numbers of a transaction are greater than those of every transaction that held
   the lock before it (1, 2), and the transactions become visible in that order (1).
4. A reader's statement sees the changes of all transactions visible when it begins. If n
   is among them, so are the smaller ones (3); those that are missing for good were
   drawn by transactions that were undone.

Without the lock on Postgres, 3 fails: a transaction may draw 7, another draw and commit
8, a reader pass on to 8, and 7 be committed then, unseen.

This holds within one history. A database that was put back to an older state, or whose
standby took over without the last commits, goes on with another. So a reader asks for its
last change again too: where that is not there with the time it had, it loads everything
anew. So does a reader behind the newest pruned change, whose number stands in the
database, written in the pruning transaction.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service.database.records import (
    BEGINNING,
    Change,
    Changes,
    Mark,
    ModelRow,
    OtherModel,
    active_of,
)
from service.database.store import Store
from service.index import index_file
from service.index.index import Codes, Edit, Index, Pairs, checksum
from service.settings import (
    DATABASE_STALL_SECONDS,
    FEED_POLL_SECONDS,
    HEARTBEAT_GAP_SECONDS,
    HEARTBEAT_SECONDS,
    SAVE_SECONDS,
    STOP_SECONDS,
)

NewIndex = Callable[[str, Codes | None], Index]  # of a model's id
NO_MODEL = "(none)"
log = logging.getLogger("gpq.service")


class Feed:
    """Keeps an index of each of some models at the feed's head, and tells the other processes
    how far it is.

    model: the one whose index is loaded first. indexes: by the models' ids. search_p99: what
    it tells them of the time searches take here.
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
        self._search_p99 = search_p99
        self.name = f"{socket.gethostname()[:32]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.model = model  # the active one, as far as this process has its index
        self.other_model: str | None = None  # the active one where it has not
        self._new_index = new_index
        self.indexes: Mapping[str, Index] = {model: new_index(model, None)}
        self._last = BEGINNING  # the last change applied
        self._catching_up = threading.Lock()
        self._answered_at = time.monotonic()
        self._failing, self._said = False, ""
        self._beat_at, self._silent = 0.0, False
        self._said_last: tuple[int, frozenset[str]] = -1, frozenset()
        self._saved_at, self._saved = time.monotonic(), (model, BEGINNING)
        self._stop = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="feed", daemon=True)

    @property
    def index(self) -> Index:
        """Of the active model."""
        return self.indexes[self.model]

    @property
    def applied(self) -> int:
        """The feed number up to which the indexes are."""
        return self._last.seq

    @property
    def down(self) -> bool:
        """The database failed when last asked, or has not answered for long."""
        silent = time.monotonic() - self._answered_at > DATABASE_STALL_SECONDS
        return self._failing or silent

    def load(self) -> None:
        """Fill the first index and set the cursor, both from one snapshot or from the file of one;
        then follow."""
        with self._catching_up:
            if not self._load_file():
                self._load()
        # A waiter that does not see this heartbeat asked before it, and what it waits for
        # was committed before that: the catching up that comes now applies it.
        self._beat()
        self.catch_up()

    def hold(self, model: str) -> None:
        """Load the codes of another model, of which there are all; from then on it is followed.

        Searches and writes go on meanwhile.
        """
        with self.store.reader.snapshot(model) as snapshot:
            head, codes = snapshot.head, self._gathered(model, snapshot.parts)
        index = self._new_index(model, codes)
        with self._catching_up:
            # An index may be ahead: what it has applied changes nothing when it comes again.
            while head.seq < self.applied:
                changes = self.store.reader.changes_after(head.seq)
                if not _continue(changes, head):
                    return  # to be loaded again
                index.apply(_edits(changes.page, model))
                head = Mark(changes.page[-1].seq, changes.page[-1].created)
            self.indexes = {**self.indexes, model: index}

    def drop(self, model: str) -> None:
        """Forget the codes of a model that is not the active one."""
        with self._catching_up:
            self.indexes = {id: index for id, index in self.indexes.items() if id != model}

    def start(self) -> None:
        self._follower.start()

    def stop(self) -> None:
        """Within moments, or at once where the database is silent."""
        self._stop.set()
        if self._follower.is_alive():
            self._follower.join(timeout=STOP_SECONDS)
        if self._follower.ident is not None and not self._follower.is_alive():
            self._save()
            try:
                self.store.replicas.leave(self.name)
            except SQLAlchemyError as error:
                log.warning("the last heartbeat stays: %s", error)

    def catch_up(self, seq: int | None = None) -> None:
        """Apply everything committed before this call, or all up to ``seq``.

        Raises OtherModel, applying nothing, where the active model is one whose codes are not
        here.
        """
        with self._catching_up:
            while seq is None or self.applied < seq:
                if not self._apply_page():
                    return

    def applied_by_all(self, seq: int) -> bool:
        """Whether every live process has said that it has applied ``seq``."""
        return all(replica.applied >= seq for replica in self.store.replicas.alive())

    def checksums(self) -> tuple[int, str, str]:
        """A feed number, and the checksum there of the index and of the database.

        Raises OtherModel where the database holds codes of another model.
        """
        with self._catching_up:
            while True:
                while self._apply_page():
                    pass
                with self.store.reader.snapshot(self.model) as snapshot:
                    self._follow_active(snapshot.models)
                    if snapshot.head == self._last:  # nobody wrote in between
                        return self.applied, self.index.checksum(), checksum(snapshot.parts)

    def _apply_page(self) -> bool:
        """Apply the next changes. False where there are none to apply."""
        changes = self.store.reader.changes_after(self._last.seq)
        self._answered_at = time.monotonic()
        self._follow_active(changes.models)
        if not _continue(changes, self._last):
            log.warning("feed: what came after %d is not known; loading anew", self._last.seq)
            self._load()
            return True
        if not changes.page:
            return False
        # Of a model that was taken out, some of these have no code, even if it is back.
        whole = {row.id for row in changes.models if row.whole}
        self.indexes = {id: index for id, index in self.indexes.items() if id in whole}
        for model, index in self.indexes.items():
            index.apply(_edits(changes.page, model))
        self._last = Mark(changes.page[-1].seq, changes.page[-1].created)
        if self.index.worth_compacting:
            self._load()
        return True

    def _load(self) -> None:
        """Searches go on in the old index until the new one is whole. Those of other models
        are to be loaded again."""
        with self.store.reader.snapshot(self.model) as snapshot:
            self._follow_active(snapshot.models)
            codes = self._gathered(self.model, snapshot.parts)
        self.indexes = {self.model: self._new_index(self.model, codes)}
        self._last = snapshot.head

    def _gathered(self, model: str, parts: Iterator[Pairs]) -> Codes:
        return Codes.gather(self._heard(parts), self._new_index(model, None).code_bytes)

    def _load_file(self) -> bool:
        """Whether there was one to load; catching up finds out if it is of this history."""
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
            log.warning("%s is not written, the database fails: %s", self.file, error)

    def _origin(self) -> index_file.Origin:
        return index_file.Origin(self.store.identity(), self.model, self.index.code_bytes)

    def _heard(self, parts: Iterator[Pairs]) -> Iterator[Pairs]:
        for part in parts:
            self._answered_at = time.monotonic()
            yield part

    def _follow_active(self, models: tuple[ModelRow, ...]) -> None:
        active = active_of(models)
        if active is None or active not in self.indexes:
            self.other_model = active or NO_MODEL
            raise OtherModel(f"the active model is {self.other_model}, not {self.model}")
        if active != self.model:
            log.info("the active model is now %s", active)
        self.model, self.other_model = active, None

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self.catch_up()
            except Exception as error:  # the thread must live: without it others' go unseen
                self._failing = isinstance(error, SQLAlchemyError)
                if str(error) != self._said:
                    known = isinstance(error, SQLAlchemyError | OtherModel)
                    log.warning(
                        "the feed cannot be followed, trying on: %s",
                        error,
                        exc_info=None if known else error,
                    )
                self._said = str(error)
                self._stop.wait(FEED_POLL_SECONDS)
            else:
                self._failing, self._said = False, ""
                self._beat()
                if time.monotonic() - self._saved_at > SAVE_SECONDS:
                    self._save()
                self._wait()

    def _wait(self) -> None:
        """Until there may be something to do; soon where a heartbeat is owed."""
        owed = self._said_last != (self.applied, frozenset(self.indexes))
        self.store.database.wait(HEARTBEAT_GAP_SECONDS if owed else FEED_POLL_SECONDS)

    def _beat(self) -> None:
        """At most one heartbeat a gap while changes come in, one an interval otherwise."""
        since = time.monotonic() - self._beat_at
        current = self.applied, frozenset(self.indexes)
        changed = self._said_last != current
        if since < (HEARTBEAT_GAP_SECONDS if changed else HEARTBEAT_SECONDS):
            return
        self._beat_at = time.monotonic()
        try:
            self.store.replicas.beat(self.name, *current, self._search_p99())
            self._said_last, self._silent = current, False
        except SQLAlchemyError as error:  # a full disk stops writes; reading goes on
            if not self._silent:
                log.warning("no heartbeat can be written, trying on: %s", error)
            self._silent = True


def _continue(changes: Changes, mark: Mark) -> bool:
    """Whether these are the changes that follow on ``mark``, in one history."""
    return mark.seq >= changes.pruned and (changes.last == mark or mark.seq == changes.pruned)


def _edits(page: list[Change], model: str) -> list[Edit]:
    return [Edit(change.seq, change.removes, change.codes.get(model)) for change in page]
