"""Remembers how long recent searches took."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LATENCY_SECONDS = 5.0  # how far back searches count
MOST = 2000  # searches remembered


class Latency:
    """The times of the searches in this process. Safe to use from any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._recent: deque[tuple[float, float]] = deque(maxlen=MOST)  # (end, duration)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Records how long the context takes."""
        started = self._now()
        try:
            yield
        finally:
            ended = self._now()
            self._recent.append((ended, ended - started))

    def p99(self) -> float | None:
        """Returns the 99th percentile in seconds; None if there were no searches."""
        since = self._now() - LATENCY_SECONDS
        taken = sorted(seconds for ended, seconds in self._recent.copy() if ended > since)
        return taken[math.ceil(0.99 * len(taken)) - 1] if taken else None
