"""Runs work in the background, so that searches continue while codes are sorted."""

import logging
import threading
import time
from collections.abc import Callable

RETRY_SECONDS = 60  # before work is tried again after a failure
log = logging.getLogger("gpq.scan")


class Background:
    """Calls ``work`` in a background thread.

    Any number of requests that arrive while ``work`` runs lead to one further call.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work
        self._requested = False
        self._running = threading.Lock()
        self._not_before = 0.0

    def request(self) -> None:
        """Starts a thread that calls ``work``, unless one runs or ``work`` failed recently."""
        self._requested = True
        if time.monotonic() < self._not_before or not self._running.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._run, name="scan-sort", daemon=True).start()
        except RuntimeError as error:  # too many threads, or the process ends
            self._running.release()
            log.warning("cannot start a thread to sort codes: %s", error)

    def _run(self) -> None:
        try:
            while self._requested:
                self._requested = False
                self.work()
        except Exception:
            self._not_before = time.monotonic() + RETRY_SECONDS
            log.exception("cannot sort codes; not trying again for %d seconds", RETRY_SECONDS)
        finally:
            self._running.release()
        if self._requested:  # after the loop has ended, but before the lock was released
            self.request()
