"""Runs work again and again on a background thread."""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from service.errors import ServiceError
from service.settings import STOP_SECONDS

EXPECTED = (SQLAlchemyError, ServiceError, OSError)  # logged without a traceback
log = logging.getLogger("gpq.service")


class PeriodicThread:
    """Calls ``work`` every ``seconds`` seconds until it is stopped, whatever ``work`` raises.

    A repeated error is logged once, and again only after a success or another error.
    ``at_once``: whether the first call comes at the start or after the first interval. ``wait``:
    replaces the interval after a call that succeeded.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        seconds: float,
        *,
        at_once: bool = False,
        wait: Callable[[], object] | None = None,
    ) -> None:
        self.stopping = threading.Event()
        self._name, self._work, self._seconds, self._at_once = name, work, seconds, at_once
        self._wait = wait
        self._logged = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float | None = STOP_SECONDS) -> bool:
        """Stops the thread; returns whether it ran and has ended within ``timeout`` seconds."""
        self.stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return self._thread.ident is not None and not self._thread.is_alive()

    def _run(self) -> None:
        if not self._at_once:
            self.stopping.wait(self._seconds)
        while not self.stopping.is_set():
            if self._call() and self._wait is not None:
                self._wait()
            else:
                self.stopping.wait(self._seconds)

    def _call(self) -> bool:
        """Returns whether the call succeeded."""
        try:
            self._work()
        except Exception as error:  # the thread must survive, or its work would never be done again
            if str(error) != self._logged:
                trace = None if isinstance(error, EXPECTED) else error
                log.warning("%s: %s; trying again", self._name, error, exc_info=trace)
            self._logged = str(error)
            return False
        self._logged = ""
        return True
