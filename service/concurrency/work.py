"""What is known about one request while it is handled, on any number of threads."""

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from service.errors import SlowBody

BODY_SECONDS = 300.0  # how long a body may take to arrive
SILENT_SECONDS = 30.0  # how long it may pause, and how long it may be slow at first
BYTES_A_SECOND = 1024  # then, on average
# A body that comes more slowly loses its place to another request, after some time.
REPLACED_SECONDS, REPLACED_BYTES_A_SECOND = 5.0, 64 * 2**10
LOOK_SECONDS = 1.0  # between looks at what has come


class Receiving:
    """A body that is being received, and the scope that ends if it comes too slowly."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self.why = ""
        self._scope, self._began, self._bytes = scope, time.monotonic(), 0
        self._latest = self._began
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(min(LOOK_SECONDS, BODY_SECONDS), self._look)

    def add(self, count: int) -> None:
        """Notes that ``count`` bytes have come."""
        self._bytes += count
        self._latest = time.monotonic()

    @property
    def rate(self) -> float:
        """Bytes a second until now."""
        return self._bytes / (time.monotonic() - self._began)

    @property
    def replaceable(self) -> bool:
        """Whether another request may take its place."""
        seconds = time.monotonic() - self._began
        return not self.why and seconds > REPLACED_SECONDS and self.rate < REPLACED_BYTES_A_SECOND

    def end(self, why: str) -> None:
        """Ends the request with SlowBody."""
        self.why = why
        self._scope.cancel()

    def done(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._began >= BODY_SECONDS:
            self.end(f"the body took longer than {BODY_SECONDS:g} seconds")
        elif now - self._latest > SILENT_SECONDS:
            self.end(f"the body was silent for {SILENT_SECONDS:g} seconds")
        elif now - self._began > SILENT_SECONDS and self.rate < BYTES_A_SECOND:
            self.end(f"the body has fewer than {BYTES_A_SECOND} bytes a second")
        else:
            self._timer = self._loop.call_later(min(LOOK_SECONDS, BODY_SECONDS), self._look)


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
        """The context in which the body arrives. Raises SlowBody if it comes too slowly."""
        with anyio.CancelScope() as scope:
            self.receiving = body = Receiving(scope)
            try:
                yield body
            finally:
                body.done()
                self.receiving = None
        if scope.cancelled_caught:
            raise SlowBody(body.why)
