"""How much of the time a job may take, by what searches notice of it."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from service.settings import HEARTBEAT_SECONDS, LATENCY_SECONDS

LOOK_SECONDS = LATENCY_SECONDS + 2 * HEARTBEAT_SECONDS  # what is said then is all of after
ALONE_SECONDS = 120.0  # how long what searches take alone is believed
SLOWER = 2.0  # times what they take alone: more is too much
LEAST = 0.05
FEWER, MORE = 0.5, 1.25  # times its share, at each look

Latencies = Mapping[str, float]  # the p99 of each process that is searched, in seconds


class Run(Protocol):
    """A job, as far as it is to rest and to say why."""

    stop: threading.Event

    def say(self, detail: str) -> None: ...


class Throttle:
    """Its share is halved where the searches of any process are too slow, grows by and by where
    there is room, and is all that was asked for where nobody searches.

    share: of the time, at most. Where somebody searches the job rests for a while, first and
    now and then, to see how long searches take without it.
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

    def rest(self, worked: float, run: Run) -> None:
        """After so many seconds of work, or before the first."""
        run.stop.wait(worked * (1 / self.share - 1))
        if self._now() < self._look_at:
            return
        latencies = self._latencies()
        if latencies and (self._now() >= self._alone_until or latencies.keys() - self._alone):
            run.say("rests, to see how long searches take without it")
            run.stop.wait(LOOK_SECONDS)
            self._alone = {**self._alone, **self._latencies()}
            self._alone_until = self._now() + ALONE_SECONDS
        run.say(self._adapt(latencies))
        self._look_at = self._now() + LOOK_SECONDS

    def _adapt(self, latencies: Latencies) -> str:
        """Returns why."""
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
