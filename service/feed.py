"""The change feed, applied to the index: own writes at once, others' by polling."""

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from service.index import Index
from service.settings import FEED_POLL_SECONDS
from service.store import Store

PAGE = 10_000
log = logging.getLogger("gpq.service")


class Feed:
    """Keeps ``index`` at the feed's head. Feed numbers come in commit order (see ``store``)."""

    def __init__(self, store: Store, index: Index, model: str) -> None:
        self.store, self.index, self.model = store, index, model
        self.applied = 0
        self.other_model: str | None = None  # set when another process made it the active one
        self._catching_up = threading.Lock()
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="feed", daemon=True)

    def load(self) -> None:
        """Fill the index and set the cursor, both from one snapshot."""
        with self.store.snapshot() as (head, parts):
            for part in parts:
                self.index.add(part)
            self.applied = head

    def start(self) -> None:
        self._poller.start()

    def stop(self) -> None:
        self._stop.set()
        if self._poller.is_alive():
            self._poller.join()

    def catch_up(self) -> None:
        """Apply everything committed before this call, but no code of another model."""
        with self._catching_up:
            while changes := self.store.changes_after(self.applied, PAGE):
                # Read after the changes: whose codes they are was settled before them.
                active = self.store.active_model()
                if active != self.model:
                    self.other_model = active
                    return
                self.index.apply(changes)
                self.applied = changes[-1].seq

    def _poll(self) -> None:
        while not self._stop.wait(FEED_POLL_SECONDS):
            try:
                self.catch_up()
            except SQLAlchemyError as error:
                log.warning("the feed cannot be read, trying on: %s", error)
            except Exception:  # the thread must live: without it others' writes go unseen
                log.exception("the feed cannot be applied, trying on")
