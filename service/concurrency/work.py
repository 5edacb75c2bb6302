"""What is known about one request while it is handled, on any number of threads."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from service.errors import SlowBody

# A body that comes more slowly loses its place to another request, after some time.
REPLACED_SECONDS, REPLACED_BYTES_A_SECOND = 5.0, 64 * 2**10


class Receiving:
    """A body that is being received. ``bytes``: how many have come."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self.bytes = 0
        self._scope, self._began = scope, time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def slow(self) -> bool:
        """Whether another request may take its place."""
        seconds = self.seconds
        return seconds > REPLACED_SECONDS and self.bytes < seconds * REPLACED_BYTES_A_SECOND

    def end(self) -> None:
        """Ends the request with SlowBody."""
        self._scope.cancel()


class Work:
    """One request.

    ``decode_seconds``: processor time that decoding its images may still take. ``receiving``: its
    body, while it arrives.
    """

    def __init__(self, decode_seconds: float = math.inf) -> None:
        self.decode_seconds = decode_seconds
        self.receiving: Receiving | None = None
        self._gone = threading.Event()

    def abandon(self) -> None:
        """Notes that nobody waits for the reply any more."""
        self._gone.set()

    def wanted(self) -> bool:
        return not self._gone.is_set()

    @contextmanager
    def receive(self) -> Iterator[Receiving]:
        """The context in which the body arrives. Raises SlowBody if it loses its place."""
        with anyio.CancelScope() as scope:
            self.receiving = Receiving(scope)
            try:
                yield self.receiving
            finally:
                self.receiving = None
        if scope.cancelled_caught:
            raise SlowBody("the body came too slowly, and others waited for its place")
