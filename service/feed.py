"""The change feed, applied to the index: own writes at once, others' within moments.

A reader asks for the changes past the last number it has seen. That misses nothing,
because a reader that has seen number n has been shown every smaller one that will
ever be. Proof:

1. A number is drawn only in a write transaction (``Database.transaction``), and all of
   these, whatever their process, exclude each other from before their first number is
   drawn until their changes are visible: on SQLite by BEGIN IMMEDIATE, the only writer
   of a file; on Postgres by an advisory lock, which a transaction gives up only after
   it has been marked as committed or undone.
2. Numbers are drawn in rising order, one by one, and never again: AUTOINCREMENT on
   SQLite; a sequence, which keeps none aside for a session (CACHE 1), on Postgres.
3. So all numbers of a transaction are greater than those of every transaction that held
   the lock before it (1, 2), and the transactions become visible in that order (1).
4. A reader's statement sees the changes of all transactions visible when it begins. If n
   is among them, so are the smaller ones (3); those that are missing for good were
   drawn by transactions that were undone.

Without the lock on Postgres, 3 fails: a transaction may draw 7, another draw and commit
8, a reader pass on to 8, and 7 be committed then, unseen.

Old changes are pruned. The newest pruned number stands in the database, written in the
pruning transaction; a reader behind it has missed changes and loads everything anew. So
does one that is ahead of the head: the database was put back to an older state.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable

from sqlalchemy.exc import SQLAlchemyError

from service.index import Index, Pairs, checksum
from service.settings import (
    FEED_POLL_SECONDS,
    HEARTBEAT_GAP_SECONDS,
    HEARTBEAT_SECONDS,
)
from service.store import OtherModel, Store

NewIndex = Callable[[Iterable[Pairs]], Index]
log = logging.getLogger("gpq.service")


class Feed:
    """Keeps ``index`` at the feed's head, and tells the other processes how far it is."""

    def __init__(self, store: Store, new_index: NewIndex, model: str) -> None:
        self.store, self.model = store, model
        self.name = f"{socket.gethostname()[:32]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.applied = 0
        self.other_model: str | None = None  # set when another process made it the active one
        self.down = False  # the database did not answer the last time it was asked
        self._new_index = new_index
        self.index = new_index(())
        self._catching_up = threading.Lock()
        self._beat_at, self._beat_applied, self._silent = 0.0, -1, False
        self._stop = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="feed", daemon=True)

    def load(self) -> None:
        """Fill the index and set the cursor, both from one snapshot; then follow."""
        with self._catching_up:
            self._load()
        # A waiter that does not see this heartbeat asked before it, and what it waits for
        # was committed before that: the catching up that comes now applies it.
        self._beat()
        self.catch_up()

    def start(self) -> None:
        self._follower.start()

    def stop(self) -> None:
        self._stop.set()
        if self._follower.is_alive():
            self._follower.join()
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

    def wait_for_all(self, seq: int, seconds: float) -> bool:
        """Whether every live process has applied ``seq``; asked for at most ``seconds``."""
        deadline = time.monotonic() + seconds
        while any(replica.applied < seq for replica in self.store.replicas()):
            if time.monotonic() > deadline:
                return False
            time.sleep(HEARTBEAT_GAP_SECONDS / 2)
        return True

    def checksums(self) -> tuple[int, str, str]:
        """A feed number, and the checksum there of the index and of the database.

        Raises OtherModel where the database holds codes of another model.
        """
        with self._catching_up:
            while True:
                with self.store.snapshot() as snapshot:
                    self._require_model(snapshot.model)
                    head, of_database = snapshot.head, checksum(snapshot.parts)
                while self.applied < head and self._apply_page(head):
                    pass
                if self.applied == head:  # not so where it had to load anew
                    return head, self.index.checksum(), of_database

    def _apply_page(self, last: int | None = None) -> bool:
        """Apply the next changes, none past ``last``. False where there are none to apply."""
        changes = self.store.changes_after(self.applied)
        self._require_model(changes.model)
        if self.applied < changes.pruned or self.applied > changes.head:
            log.warning("feed: changes after %d are gone; loading everything anew", self.applied)
            self._load()
            return True
        page = [change for change in changes.page if last is None or change.seq <= last]
        if not page:
            return False
        self.index.apply(page)
        self.applied = page[-1].seq
        if self.index.worth_compacting:
            self._load()
        return True

    def _load(self) -> None:
        """Searches go on in the old index until the new one is whole."""
        with self.store.snapshot() as snapshot:
            self._require_model(snapshot.model)
            self.index = self._new_index(snapshot.parts)
            self.applied = snapshot.head

    def _require_model(self, active: str | None) -> None:
        if active != self.model:
            self.other_model = active
            raise OtherModel(f"the active model is {active}, not {self.model}")

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self.catch_up()
            except OtherModel as error:
                log.error("the feed is not followed any more: %s", error)
                return
            except SQLAlchemyError as error:
                if not self.down:
                    log.warning("the feed cannot be read, trying on: %s", error)
                self.down = True
                self._stop.wait(FEED_POLL_SECONDS)
                continue
            except Exception:  # the thread must live: without it others' writes go unseen
                log.exception("the feed cannot be applied, trying on")
                self._stop.wait(FEED_POLL_SECONDS)
                continue
            self.down = False
            self._beat()
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
