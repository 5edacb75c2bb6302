"""Codes are sorted while searches go on."""

import logging
import threading
import time
from collections.abc import Callable

RETRY_SECONDS = 60  # after a failure
log = logging.getLogger("gpq.scan")


class Background:
    """Calls ``work`` in a thread of its own, soon and once, however often it is asked for."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work
        self._asked = False
        self._running = threading.Lock()
        self._not_before = 0.0

    def ask(self) -> None:
        self._asked = True
        if time.monotonic() < self._not_before or not self._running.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._run, name="scan-sort", daemon=True).start()
        except RuntimeError as error:  # no more threads, or the end of the process
            self._running.release()
            log.warning("codes are not sorted now: %s", error)

    def _run(self) -> None:
        try:
            while self._asked:
                self._asked = False
                self.work()
        except Exception:
            self._not_before = time.monotonic() + RETRY_SECONDS
            log.exception("codes cannot be sorted; it is tried again")
        finally:
            self._running.release()
        if self._asked:  # since it was last looked at
            self.ask()
