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

    def __init__(self, store: Store, index: Index) -> None:
        self.store, self.index = store, index
        self.applied = 0
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
        """Apply everything committed before this call."""
        with self._catching_up:
            while changes := self.store.changes_after(self.applied, PAGE):
                self.index.apply(changes)
                self.applied = changes[-1].seq

    def _poll(self) -> None:
        while not self._stop.wait(FEED_POLL_SECONDS):
            try:
                self.catch_up()
            except SQLAlchemyError as error:
                log.warning("the feed cannot be read, trying on: %s", error)
