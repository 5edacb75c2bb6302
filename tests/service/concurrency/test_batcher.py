import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from service.concurrency import wait_budget
from service.concurrency.batcher import Batcher
from service.errors import WaitedTooLong
from service.telemetry import timing


class Work:
    """Doubles numbers; the first batch waits until ``go`` is set."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, key: str, items: Sequence[int]) -> list[int]:
        self.batches.append((key, list(items)))
        self.begun.set()
        assert self.go.wait(10)
        if -1 in items:
            raise ValueError("a bad batch")
        with timing.stage("encode"):
            time.sleep(0.01)
        return [2 * item for item in items]


def submit_behind_one(
    work: Work, *requests: tuple[str, list[int]], most: int = 4
) -> list[list[int]]:
    """Submits requests in this order while another batch runs, and returns their results."""
    with closing(Batcher("batch", work, most)) as batcher:
        first = batcher.submit("first", [0])
        assert work.begun.wait(10)
        futures = [batcher.submit(key, items) for key, items in requests]
        work.go.set()
        assert first.result(10) == [0]
        return [future.result(10) for future in futures]


def test_requests_that_arrive_during_a_batch_form_the_next_batch() -> None:
    work = Work()
    assert submit_behind_one(work, ("a", [1]), ("a", [2, 3]), ("a", [4])) == [[2], [4, 6], [8]]
    assert work.batches == [("first", [0]), ("a", [1, 2, 3, 4])]


def test_a_request_of_another_key_or_over_the_limit_waits_for_another_batch() -> None:
    work = Work()
    found = submit_behind_one(work, ("a", [1, 2, 3]), ("b", [4]), ("a", [5, 6]), ("a", [7]))
    assert found == [[2, 4, 6], [8], [10, 12], [14]]
    assert sorted(work.batches) == [
        ("a", [1, 2, 3, 7]), ("a", [5, 6]), ("b", [4]), ("first", [0]),
    ]  # fmt: skip


def test_a_request_larger_than_a_batch_gets_its_own_batch() -> None:
    work = Work()
    found = submit_behind_one(work, ("a", [1]), ("a", list(range(2, 8))), ("a", [8]))
    assert found == [[2], [4, 6, 8, 10, 12, 14], [16]]
    assert work.batches[1:] == [("a", [1, 8]), ("a", [2, 3, 4, 5, 6, 7])]


def test_several_threads_run_batches_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def work(key: str, items: Sequence[int]) -> Sequence[int]:
        both.wait(10)
        return [threading.get_native_id()]

    with closing(Batcher("batch", work, 1, threads=2)) as batcher:
        futures = [batcher.submit("a", [n]) for n in range(2)]
        assert futures[0].result(10) != futures[1].result(10)


def test_every_request_gets_its_own_result_or_an_error() -> None:
    def work(key: str, items: Sequence[int]) -> list[int]:
        assert len(items) <= 8
        time.sleep(0.0002 * dice.random())
        if 13 in items:
            raise ValueError("a bad batch")
        return [-item if key == "negative" else item for item in items]

    def request(n: int) -> str:
        own = random.Random(n)
        key = own.choice(["positive", "negative"])
        items = [own.randrange(14 if n % 10 == 0 else 13) for _ in range(1 + own.randrange(8))]
        try:
            with wait_budget.limited(own.choice([1e-4, 1e-2, 60])):
                found = batcher.submit(key, items).result(30)
        except WaitedTooLong:
            return "late"
        except ValueError:
            return "bad"
        assert found == [-item if key == "negative" else item for item in items]
        return "done"

    dice = random.Random(0)
    with closing(Batcher("batch", work, 8)) as batcher, ThreadPoolExecutor(32) as pool:
        assert set(pool.map(request, range(1000))) == {"late", "bad", "done"}


def test_an_error_reaches_only_the_requests_of_its_batch() -> None:
    work = Work()
    work.go.set()
    with closing(Batcher("batch", work, 4)) as batcher:
        with pytest.raises(ValueError, match="a bad batch"):
            batcher.submit("a", [-1]).result(10)
        assert batcher.submit("a", [1]).result(10) == [2]


def test_requests_that_wait_too_long_or_are_cancelled_are_not_run() -> None:
    work = Work()
    with closing(Batcher("batch", work, 4)) as batcher:
        first = batcher.submit("first", [0])
        assert work.begun.wait(10)
        with wait_budget.limited(0.05):
            late = batcher.submit("a", [1])
        patient, cancelled = batcher.submit("a", [2]), batcher.submit("a", [3])
        assert cancelled.cancel()
        time.sleep(0.2)
        work.go.set()
        with pytest.raises(WaitedTooLong):
            late.result(10)
        assert (first.result(10), patient.result(10)) == ([0], [4])
    assert work.batches == [("first", [0]), ("a", [2])]


def test_closing_a_batcher_finishes_its_batch_and_cancels_waiting_requests() -> None:
    work = Work()
    batcher = Batcher("batch", work, 4)
    first = batcher.submit("first", [0])
    assert work.begun.wait(10)
    waiting = batcher.submit("a", [1])
    batcher.close()
    assert waiting.cancelled() and batcher.submit("a", [2]).cancelled()
    work.go.set()
    assert first.result(10) == [0]
    for thread in batcher._threads:
        thread.join(10)
        assert not thread.is_alive()


def test_each_request_is_timed_in_the_queue_and_in_its_batch() -> None:
    work = Work()
    with closing(Batcher("batch", work, 4)) as batcher:
        with timing.collected() as first_times:
            first = batcher.submit("a", [1])
        assert work.begun.wait(10)
        with timing.collected() as second_times:
            second = batcher.submit("a", [1])
        time.sleep(0.1)
        work.go.set()
        assert (first.result(10), second.result(10)) == ([2], [2])
    assert first_times.stages["queue"] < 0.1 <= second_times.stages["queue"]
    assert second_times.stages["encode"] >= 0.01


def test_requests_share_the_processor_time_of_their_batch_by_size() -> None:
    begun, go = threading.Event(), threading.Event()

    def work(key: str, items: Sequence[int]) -> Sequence[int]:
        begun.set()
        assert go.wait(10)
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass
        return items

    taken = []
    with closing(Batcher("batch", work, 8)) as batcher:
        first = batcher.submit("a", [0])
        assert begun.wait(10)
        for items in ([1], [1, 2, 3]):
            with timing.collected() as spent:
                taken.append((spent, batcher.submit("a", items)))
        go.set()
        for _, future in taken:
            future.result(10)
    assert first.result(10) == [0]
    assert [spent.cpu for spent, _ in taken] == pytest.approx([0.05, 0.15], rel=0.2)


def test_the_next_request_starts_the_threads_that_could_not_start_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_thread, started = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        started.append(thread.name)
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with closing(Batcher("batch", lambda key, items: items, 4, threads=3)) as batcher:
        with pytest.raises(RuntimeError):
            batcher.submit("a", [1])
        assert batcher.submit("a", [2]).result(10) == [2]
    assert started == ["batch_0", "batch_1", "batch_1", "batch_2"]
