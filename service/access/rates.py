"""Limits how often a caller may send requests, and how often an address may try wrong keys."""

import math
import time
from dataclasses import dataclass

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

WRONG_KEYS_A_MINUTE = 10  # of one address
MINUTE, MOST_TRIED = 60.0, 10_000


@dataclass(frozen=True)
class Standing:
    """How a caller stands after a request.

    ``limit``: requests a second. ``remaining``: how many it may still send. ``reset``: seconds
    until it may send again, or more.
    """

    allowed: bool
    limit: int
    remaining: int
    reset: int


class Rates:
    """Counts the requests of each caller in this process.

    ``limit``: requests a second of one caller, or None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = RateLimitItemPerSecond(limit) if limit else None
        self._wrong = RateLimitItemPerMinute(WRONG_KEYS_A_MINUTE)
        self._tried: dict[tuple[str, int], float] = {}  # when, the oldest first
        self._counter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, caller: str) -> Standing | None:
        """Counts a request; None without a limit."""
        if self._limit is None:
            return None
        allowed = self._counter.hit(self._limit, "requests", caller)
        return self._standing(self._limit, allowed, "requests", caller)

    def count_wrong_key(self, address: str, secret: str) -> None:
        """Counts a secret once a minute, so that a client with an old key blocks nobody."""
        now, tried = time.monotonic(), (address, hash(secret))
        if now - self._tried.get(tried, -math.inf) < MINUTE:
            return
        self._tried.pop(tried, None)
        self._tried[tried] = now
        if len(self._tried) > MOST_TRIED:
            self._tried.pop(next(iter(self._tried)))
        self._counter.hit(self._wrong, "wrong", address)

    def may_try(self, address: str) -> Standing:
        """Whether an address may try another key that is not known to be right."""
        allowed = self._counter.test(self._wrong, "wrong", address)
        return self._standing(self._wrong, allowed, "wrong", address)

    def _standing(self, item: RateLimitItem, allowed: bool, *names: str) -> Standing:
        window = self._counter.get_window_stats(item, *names)
        reset = max(1, math.ceil(window.reset_time - time.time()))
        return Standing(allowed, item.amount, max(0, window.remaining), reset)
