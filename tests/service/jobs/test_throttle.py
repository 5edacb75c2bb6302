import threading
from collections.abc import Callable

import pytest

from service.jobs.throttle import ALONE_SECONDS, LEAST, LOOK_SECONDS, MORE, Latencies, Throttle
from service.telemetry.latency import LATENCY_SECONDS, MOST, Latency


class Clock(threading.Event):
    """A clock and a stop event: waiting for the event advances the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 100.0
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.time += timeout
        self.waits.append(timeout)
        return False

    def now(self) -> float:
        return self.time


class Job:
    """A job that works for 0.1 s at a time, beside searches of the given latencies."""

    def __init__(self, share: float, searches: Callable[[float], Latencies]) -> None:
        self.stop = self.clock = Clock()
        self.said: list[str] = []
        self.busy = 0.0  # the share of the time that it works
        self.throttle = Throttle(share, lambda: searches(self.seen_share()), self.clock.now)
        self.throttle.rest(0.0, self)

    def seen_share(self) -> float:
        """Returns the share that the reported latencies cover: 0 after a rest to measure."""
        return 0.0 if self.clock.waits[-1] == LOOK_SECONDS else self.busy

    def say(self, detail: str) -> None:
        self.said.append(detail)

    def work(self, seconds: float) -> None:
        end = self.clock.time + seconds
        while self.clock.time < end:
            self.busy = self.throttle.share
            self.clock.time += 0.1
            resting = len(self.clock.waits)
            self.throttle.rest(0.1, self)
            assert self.clock.waits[resting] == pytest.approx(0.1 * (1 / self.busy - 1))


def slowed(alone: float, slower: float) -> Callable[[float], Latencies]:
    """Returns latencies by a job's share: ``alone`` at 0, ``1 + slower`` times that at 1."""
    return lambda busy: {"a": alone * (1 + slower * busy)}


def test_a_job_takes_its_whole_share_if_nobody_searches() -> None:
    job = Job(0.5, lambda busy: {})
    job.work(60)
    assert job.throttle.share == 0.5
    assert set(job.said) == {"takes 50% of the time: nobody searches"}
    assert LOOK_SECONDS not in job.clock.waits


def test_a_job_takes_its_whole_share_if_searches_stay_fast_enough() -> None:
    job = Job(0.5, slowed(0.02, slower=1.0))
    job.work(60)
    assert job.throttle.share == 0.5
    assert job.said[0] == "rests to measure how long searches take without it"
    assert job.said[-1] == ("takes 50% of the time: searches take 30 ms (p99), 20 ms without it")


@pytest.mark.parametrize("slower", [4.0, 12.0])
def test_the_share_settles_where_searches_take_twice_as_long(slower: float) -> None:
    job = Job(0.8, slowed(0.02, slower))
    job.work(300)
    shares = []
    for _ in range(100):
        job.work(LOOK_SECONDS)
        shares.append(job.throttle.share)
    twice = 1 / slower  # the share at which searches take twice as long
    assert twice / 2 <= min(shares) and max(shares) <= twice * MORE
    assert sum(share <= twice for share in shares) >= 60


def test_the_share_stays_between_its_least_and_its_maximum() -> None:
    job = Job(0.5, slowed(0.02, slower=1000.0))
    job.work(200)
    assert job.throttle.share == LEAST
    small = Job(0.01, slowed(0.02, slower=1000.0))
    small.work(500)
    assert small.throttle.share == 0.01


def test_the_share_recovers_when_searches_end() -> None:
    answers: list[Latencies] = [{"a": 0.02}, {"a": 0.02}]
    job = Job(0.5, lambda busy: answers.pop(0) if answers else {"a": 1.0})
    job.work(40)
    assert job.throttle.share < 0.1
    answers += [{}] * 10
    job.work(LOOK_SECONDS + 3)
    assert job.throttle.share == 0.5


def test_the_process_slowed_most_counts_and_not_the_slowest() -> None:
    answers: list[Latencies] = [{"fast": 0.01, "slow": 1.0}] * 2
    job = Job(0.8, lambda busy: answers.pop(0) if answers else {"fast": 0.03, "slow": 1.1})
    job.work(2 * LOOK_SECONDS)
    assert job.throttle.share < 0.8
    assert "searches take 30 ms (p99), 10 ms without it" in job.said[-1]


def test_a_process_that_joins_later_is_first_measured_without_the_job() -> None:
    seen: dict[str, float] = {"a": 0.02}
    job = Job(0.5, lambda busy: dict(seen))
    job.work(LOOK_SECONDS + 1)
    assert job.clock.waits.count(LOOK_SECONDS) == 1
    seen["b"] = 0.5
    job.work(LOOK_SECONDS + 1)
    assert job.clock.waits.count(LOOK_SECONDS) == 2
    del seen["a"]
    job.work(LOOK_SECONDS + 1)
    assert job.clock.waits.count(LOOK_SECONDS) == 2
    assert job.throttle.share == 0.5


def test_searches_that_get_slow_by_themselves_slow_a_job_only_for_a_while() -> None:
    p99 = 0.02
    job = Job(0.5, lambda busy: {"a": p99})
    job.work(10)
    p99 = 0.2
    job.work(60)
    assert job.throttle.share < 0.1
    job.work(2 * ALONE_SECONDS)
    assert job.throttle.share == 0.5


def test_the_p99_covers_only_the_last_seconds() -> None:
    clock = Clock()
    latency = Latency(clock.now)
    assert latency.p99() is None
    for n in range(100):
        with latency.measured():
            clock.wait(0.04 if n == 42 else 0.01)
    with pytest.raises(ValueError, match="no"), latency.measured():
        clock.wait(0.02)
        raise ValueError("no")
    assert latency.p99() == pytest.approx(0.02)
    clock.wait(LATENCY_SECONDS - 0.015)
    assert latency.p99() == pytest.approx(0.02)
    clock.wait(0.02)
    assert latency.p99() is None
    for _ in range(MOST + 10):
        with latency.measured():
            clock.wait(0.001)
    assert len(latency._recent) == MOST
