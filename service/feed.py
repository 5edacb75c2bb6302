"""The change feed, applied to the index: own writes at once, others' within moments.

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
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service import indexfile
from service.index import Codes, Index, Pairs, checksum
from service.records import BEGINNING, Mark, OtherModel
from service.settings import (
    DATABASE_STALL_SECONDS,
    FEED_POLL_SECONDS,
    HEARTBEAT_GAP_SECONDS,
    HEARTBEAT_SECONDS,
    SAVE_SECONDS,
    STOP_SECONDS,
)
from service.store import Store

NewIndex = Callable[[Codes | None], Index]
NO_MODEL = "(none)"
log = logging.getLogger("gpq.service")


class Feed:
    """Keeps ``index`` at the feed's head, and tells the other processes how far it is."""

    def __init__(
        self, store: Store, new_index: NewIndex, model: str, file: Path | None = None
    ) -> None:
        self.store, self.model, self.file = store, model, file
        self.name = f"{socket.gethostname()[:32]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.other_model: str | None = None  # the one that another process made active
        self._new_index = new_index
        self.index = new_index(None)
        self._last = BEGINNING  # the last change applied
        self._catching_up = threading.Lock()
        self._answered_at = time.monotonic()
        self._failing, self._said = False, ""
        self._beat_at, self._beat_applied, self._silent = 0.0, -1, False
        self._saved_at, self._saved = time.monotonic(), BEGINNING
        self._stop = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="feed", daemon=True)

    @property
    def applied(self) -> int:
        """The feed number up to which the index is."""
        return self._last.seq

    @property
    def down(self) -> bool:
        """The database failed when last asked, or has not answered for long."""
        silent = time.monotonic() - self._answered_at > DATABASE_STALL_SECONDS
        return self._failing or silent

    def load(self) -> None:
        """Fill the index and set the cursor, both from one snapshot or from the file of one;
        then follow."""
        with self._catching_up:
            if not self._load_file():
                self._load()
        # A waiter that does not see this heartbeat asked before it, and what it waits for
        # was committed before that: the catching up that comes now applies it.
        self._beat()
        self.catch_up()

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
                self.store.leave(self.name)
            except SQLAlchemyError as error:
                log.warning("the last heartbeat stays: %s", error)

    def catch_up(self, seq: int | None = None) -> None:
        """Apply everything committed before this call, or all up to ``seq``.

        Raises OtherModel, applying nothing, where the database holds codes of another model.
        """
        with self._catching_up:
            while seq is None or self.applied < seq:
                if not self._apply_page():
                    return

    def applied_by_all(self, seq: int) -> bool:
        """Whether every live process has said that it has applied ``seq``."""
        return all(replica.applied >= seq for replica in self.store.replicas())

    def checksums(self) -> tuple[int, str, str]:
        """A feed number, and the checksum there of the index and of the database.

        Raises OtherModel where the database holds codes of another model.
        """
        with self._catching_up:
            while True:
                with self.store.snapshot() as snapshot:
                    self._require_model(snapshot.model)
                    head, of_database = snapshot.head, checksum(snapshot.parts)
                while self._apply_page(head.seq):
                    pass
                if self._last == head:  # not so where it had to load anew
                    return head.seq, self.index.checksum(), of_database

    def _apply_page(self, until: int | None = None) -> bool:
        """Apply the next changes, none past ``until``. False where there are none to apply."""
        changes = self.store.changes_after(self._last.seq)
        self._answered_at = time.monotonic()
        returned = self.other_model is not None
        self._require_model(changes.model)
        same_history = changes.last == self._last or self._last.seq == changes.pruned
        if returned or self._last.seq < changes.pruned or not same_history:
            log.warning("feed: what came after %d is not known; loading anew", self._last.seq)
            self._load()
            return True
        page = [change for change in changes.page if until is None or change.seq <= until]
        if not page:
            return False
        self.index.apply(page)
        self._last = Mark(page[-1].seq, page[-1].created)
        if self.index.worth_compacting:
            self._load()
        return True

    def _load(self) -> None:
        """Searches go on in the old index until the new one is whole."""
        with self.store.snapshot() as snapshot:
            self._require_model(snapshot.model)
            codes = Codes.gather(self._heard(snapshot.parts), self.index.code_bytes)
        self.index = self._new_index(codes)
        self._last = snapshot.head

    def _load_file(self) -> bool:
        """Whether there was one to load; catching up finds out if it is of this history."""
        if self.file is None or (found := indexfile.load(self.file, self._origin())) is None:
            return False
        self._saved, codes = found
        self.index, self._last = self._new_index(codes), self._saved
        log.info("%d codes from %s, as of change %d", len(codes.seqs), self.file, self._last.seq)
        return True

    def _save(self) -> None:
        if self.file is None or self._saved == self._last or self._last == BEGINNING:
            return
        self._saved_at = time.monotonic()
        try:
            with self._catching_up:
                mark, codes = self._last, self.index.codes()
            indexfile.save(self.file, self._origin(), mark, codes)
            self._saved = mark
        except OSError as error:
            log.warning("%s cannot be written: %s", self.file, error)
        except SQLAlchemyError as error:
            log.warning("%s is not written, the database fails: %s", self.file, error)

    def _origin(self) -> indexfile.Origin:
        return indexfile.Origin(self.store.identity(), self.model, self.index.code_bytes)

    def _heard(self, parts: Iterator[Pairs]) -> Iterator[Pairs]:
        for part in parts:
            self._answered_at = time.monotonic()
            yield part

    def _require_model(self, active: str | None) -> None:
        if active != self.model:
            self.other_model = active or NO_MODEL
            raise OtherModel(f"the active model is {self.other_model}, not {self.model}")
        self.other_model = None

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
        owed = self._beat_applied != self.applied
        self.store.database.wait(HEARTBEAT_GAP_SECONDS if owed else FEED_POLL_SECONDS)

    def _beat(self) -> None:
        """At most one heartbeat a gap while changes come in, one an interval otherwise."""
        since = time.monotonic() - self._beat_at
        changed = self._beat_applied != self.applied
        if since < (HEARTBEAT_GAP_SECONDS if changed else HEARTBEAT_SECONDS):
            return
        applied = self.applied
        self._beat_at = time.monotonic()
        try:
            self.store.beat(self.name, applied)
            self._beat_applied, self._silent = applied, False
        except SQLAlchemyError as error:  # a full disk stops writes; reading goes on
            if not self._silent:
                log.warning("no heartbeat can be written, trying on: %s", error)
            self._silent = True
