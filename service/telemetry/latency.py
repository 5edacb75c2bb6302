"""How long the searches of the last seconds took."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.settings import LATENCY_SECONDS

MOST = 2000  # searches remembered


class Latency:
    """Of one process. Used from any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._recent: deque[tuple[float, float]] = deque(maxlen=MOST)  # when, how long

    @contextmanager
    def measured(self) -> Iterator[None]:
        started = self._now()
        try:
            yield
        finally:
            ended = self._now()
            self._recent.append((ended, ended - started))

    def p99(self) -> float | None:
        """In seconds; None where nobody searches."""
        since = self._now() - LATENCY_SECONDS
        taken = sorted(seconds for ended, seconds in self._recent.copy() if ended > since)
        return taken[math.ceil(0.99 * len(taken)) - 1] if taken else None
