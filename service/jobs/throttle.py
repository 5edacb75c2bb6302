"""Limits the share of time that a job takes, by how much it slows searches down."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from service.index.heartbeat import HEARTBEAT_SECONDS
from service.telemetry.latency import LATENCY_SECONDS

DEFAULT_SHARE = 0.5  # of the time, at most; the rest is left to searches
# Between looks: long enough that reports cover only the time since.
LOOK_SECONDS = LATENCY_SECONDS + 2 * HEARTBEAT_SECONDS
ALONE_SECONDS = 120.0  # how long a measurement of searches without the job is used
SLOWER = 2.0  # how many times as long searches may take as without the job
LEAST = 0.05  # the share never falls below it
FEWER, MORE = 0.5, 1.25  # factors of the share, at each look

Latencies = Mapping[str, float]  # the search p99 of each process that is searched, in seconds


class ThrottledRun(Protocol):
    """The part of a job that the throttle uses."""

    stop: threading.Event

    def say(self, detail: str) -> None: ...


class Throttle:
    """Adapts the share of time that a job takes.

    The share is halved while the searches of any process are too slow, grows again while they are
    not, and is ``share``, its maximum, if nobody searches. To learn how long searches take without
    the job, the job rests for a while at the start and from time to time.
    """

    def __init__(
        self,
        share: float,
        latencies: Callable[[], Latencies],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.share = self.most = share
        self._latencies, self._now = latencies, now
        self._alone: Latencies = {}
        self._alone_until = self._look_at = now()

    def rest(self, worked: float, run: ThrottledRun) -> None:
        """Rests after ``worked`` seconds of work; 0 before the first work."""
        run.stop.wait(worked * (1 / self.share - 1))
        if self._now() < self._look_at:
            return
        latencies = self._latencies()
        if latencies and (self._now() >= self._alone_until or latencies.keys() - self._alone):
            run.say("rests to measure how long searches take without it")
            run.stop.wait(LOOK_SECONDS)
            self._alone = {**self._alone, **self._latencies()}
            self._alone_until = self._now() + ALONE_SECONDS
        run.say(self._adapt(latencies))
        self._look_at = self._now() + LOOK_SECONDS

    def _adapt(self, latencies: Latencies) -> str:
        """Changes the share and returns the reason."""
        known = latencies.keys() & self._alone.keys()
        if not known:
            self.share = self.most
            return f"takes {self.share:.0%} of the time: nobody searches"
        worst = max(known, key=lambda name: latencies[name] / self._alone[name])
        p99, alone = latencies[worst], self._alone[worst]
        if p99 > SLOWER * alone:
            self.share = max(min(LEAST, self.most), self.share * FEWER)
        else:
            self.share = min(self.most, self.share * MORE)
        return (
            f"takes {self.share:.0%} of the time: searches take {p99 * 1000:.0f} ms (p99), "
            f"{alone * 1000:.0f} ms without it"
        )
