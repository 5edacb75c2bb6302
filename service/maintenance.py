"""What must be done now and then: prune the feed, sweep what nothing points to."""

import logging
import math
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from service.database.store import Store
from service.originals import Originals
from service.problems import Problem
from service.settings import FEED_PAGE, JOB_SECONDS, PRUNE_SECONDS, STOP_SECONDS, SWEEP_SECONDS

log = logging.getLogger("gpq.service")


class Upkeep:
    """A thread of its own; every process may do it, also at once."""

    def __init__(self, store: Store, originals: Originals, feed_seconds: int) -> None:
        self.store, self.originals, self.feed_seconds = store, originals, feed_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def claim(self) -> bool:
        """Before anything is stored: the image store is told which database comes to it. Whether
        it may be swept. Raises SQLAlchemyError, Problem 503 or 507."""
        return self.originals.claim(self.store.identity(), self.store.reader.head())

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_SECONDS)

    def _run(self) -> None:
        swept_at = -math.inf
        interval = min(PRUNE_SECONDS, self.feed_seconds)
        while not self._stop.is_set():
            try:
                self._prune()
                self.store.models.sweep()
                if time.monotonic() - swept_at >= SWEEP_SECONDS:
                    self.store.jobs.prune(JOB_SECONDS)
                    self._sweep()
                    swept_at = time.monotonic()
            except (OSError, SQLAlchemyError, Problem) as error:
                log.warning("upkeep failed, it is tried again: %s", error)
            except Exception:
                log.exception("upkeep failed, it is tried again")
            self._stop.wait(interval)

    def _prune(self) -> None:
        while self.store.prune(self.feed_seconds) == FEED_PAGE and not self._stop.is_set():
            pass

    def _sweep(self) -> None:
        if not self.claim():
            return
        removed = self.originals.sweep(self.store.reader.originals_in_use)
        if removed:
            log.info("swept %d originals nothing points to", removed)
