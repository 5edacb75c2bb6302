"""Reports to the other replicas what this process has applied."""

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable

from sqlalchemy.exc import SQLAlchemyError

from service.database.replicas import ReplicaTable

HEARTBEAT_SECONDS = 1.0  # between heartbeats
HEARTBEAT_GAP_SECONDS = 0.1  # between heartbeats while changes arrive, at least
log = logging.getLogger("gpq.service")


class Heartbeat:
    """Writes the row of this process. ``search_p99``: returns how long its searches take."""

    def __init__(
        self, replicas: ReplicaTable, search_p99: Callable[[], float | None] = lambda: None
    ) -> None:
        self.name = f"{socket.gethostname()[:32]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._replicas, self._search_p99 = replicas, search_p99
        self._beat_at = 0.0
        self._reported: tuple[int, frozenset[str]] = -1, frozenset()
        self._failing = False

    def is_due(self, applied: int, models: Iterable[str]) -> bool:
        """Returns whether the other replicas do not know this state yet."""
        return self._reported != (applied, frozenset(models))

    def beat(self, applied: int, models: Iterable[str]) -> None:
        """Writes a heartbeat if the last one is HEARTBEAT_SECONDS old, or, if the state changed,
        HEARTBEAT_GAP_SECONDS.
        """
        state = applied, frozenset(models)
        interval = HEARTBEAT_GAP_SECONDS if self.is_due(*state) else HEARTBEAT_SECONDS
        if time.monotonic() - self._beat_at < interval:
            return
        self._beat_at = time.monotonic()
        try:
            self._replicas.beat(self.name, *state, self._search_p99())
            self._reported, self._failing = state, False
        except SQLAlchemyError as error:  # a full disk stops writes; reads must go on
            if not self._failing:
                log.warning("no heartbeat can be written; trying again: %s", error)
            self._failing = True

    def leave(self) -> None:
        """Deletes the row of this process."""
        try:
            self._replicas.leave(self.name)
        except SQLAlchemyError as error:
            log.warning("the heartbeat of this process cannot be deleted: %s", error)
