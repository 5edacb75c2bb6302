"""Prunes the feed, deletes leftover codes and old jobs, sweeps unused originals, and returns free
memory to the system."""

import logging
import math
import time

from gpq.system import memory
from service.concurrency.periodic import PeriodicThread
from service.database.feed import PAGE
from service.database.store import Store
from service.originals.originals import Originals

PRUNE_SECONDS = 60  # between prunings of the feed, at most
SWEEP_SECONDS = 3600  # between sweeps of unused originals
JOB_SECONDS = 30 * 86_400  # how long a job that has ended is remembered
log = logging.getLogger("gpq.service")


class Maintenance:
    """Runs maintenance on a background thread. Several processes may do so at the same time."""

    def __init__(self, store: Store, originals: Originals, feed_seconds: int) -> None:
        self.store, self.originals, self.feed_seconds = store, originals, feed_seconds
        self._swept_at = -math.inf
        interval = min(PRUNE_SECONDS, feed_seconds)
        self._thread = PeriodicThread("maintenance", self._maintain, interval, at_once=True)

    def claim(self) -> bool:
        """Records that this database uses the image store; call it before anything is stored.

        Returns whether the store may be swept. Raises SQLAlchemyError, Unavailable, StorageFull.
        """
        return self.originals.claim(self.store.state.identity(), self.store.feed.head())

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    def _maintain(self) -> None:
        # The allocator keeps what many large requests took, in pieces, for each thread.
        memory.give_back()
        self._prune()
        self.store.models.sweep()
        if time.monotonic() - self._swept_at >= SWEEP_SECONDS:
            self.store.jobs.prune(JOB_SECONDS)
            self.store.copies.sweep()
            self._sweep()
            self._swept_at = time.monotonic()

    def _prune(self) -> None:
        stopping = self._thread.stopping
        while self.store.feed.prune(self.feed_seconds) == PAGE and not stopping.is_set():
            pass

    def _sweep(self) -> None:
        if not self.claim():
            return
        removed = self.originals.sweep(self.store.images.originals_in_use)
        if removed:
            log.info("removed %d unused originals", removed)
