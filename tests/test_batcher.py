import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from service import patience, stages
from service.batcher import Batcher
from service.problems import Problem


class Work:
    """Doubles numbers; the first batch waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, key: str, items: Sequence[int]) -> list[int]:
        self.batches.append((key, list(items)))
        self.begun.set()
        assert self.go.wait(10)
        if -1 in items:
            raise ValueError("a bad batch")
        with stages.stage("encode"):
            time.sleep(0.01)
        return [2 * item for item in items]


def behind_one(work: Work, *asked: tuple[str, list[int]], most: int = 4) -> list[list[int]]:
    """What each gets that asks, in this order, while a batch of one is done."""
    batcher = Batcher(work, most)
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(batcher.do, "first", [0])
        assert work.begun.wait(10)
        futures = []
        for key, items in asked:
            futures.append(pool.submit(batcher.do, key, items))
            while len(batcher._waiting) < sum(-(-len(i) // most) for _, i in asked[: len(futures)]):
                time.sleep(0.001)
        work.go.set()
        assert first.result(10) == [0]
        return [future.result(10) for future in futures]


def test_what_is_asked_for_meanwhile_is_done_together() -> None:
    work = Work()
    assert behind_one(work, ("a", [1]), ("a", [2, 3]), ("a", [4])) == [[2], [4, 6], [8]]
    assert work.batches == [("first", [0]), ("a", [1, 2, 3, 4])]


def test_another_key_and_what_has_no_room_wait_for_their_own_batch() -> None:
    work = Work()
    found = behind_one(work, ("a", [1, 2, 3]), ("b", [4]), ("a", [5, 6]), ("a", [7]))
    assert found == [[2, 4, 6], [8], [10, 12], [14]]
    assert sorted(work.batches) == [
        ("a", [1, 2, 3, 7]), ("a", [5, 6]), ("b", [4]), ("first", [0]),
    ]  # fmt: skip


def test_more_than_a_batch_is_done_in_parts() -> None:
    work = Work()
    work.go.set()
    assert Batcher(work, 4).do("a", list(range(10))) == list(range(0, 20, 2))
    assert [len(items) for _, items in work.batches] == [4, 4, 2]
    assert Batcher(work, 4).do("a", []) == []


def test_a_part_that_has_room_goes_before_the_first_of_its_request() -> None:
    work = Work()
    assert behind_one(work, ("a", [1, 2]), ("a", list(range(3, 9)))) == [
        [2, 4], [6, 8, 10, 12, 14, 16],
    ]  # fmt: skip
    assert work.batches[1:] == [("a", [1, 2, 7, 8]), ("a", [3, 4, 5, 6])]


def test_what_is_done_does_not_wait_for_the_batch_of_another() -> None:
    last = threading.Event()

    def work(key: str, items: Sequence[int]) -> Sequence[int]:
        begun.set()
        assert (last if key == "last" else go).wait(10)
        return items

    begun, go, batcher = threading.Event(), threading.Event(), Batcher(work, 4)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(batcher.do, "first", [0])]
        assert begun.wait(10)
        for waiting, key in enumerate(["a", "last", "a"]):
            while len(batcher._waiting) < waiting:
                time.sleep(0.001)
            answers.append(pool.submit(batcher.do, key, [waiting]))
        while len(batcher._waiting) < 3:
            time.sleep(0.001)
        go.set()
        try:
            assert [answers[n].result(5) for n in (0, 1, 3)] == [[0], [0], [2]]
        finally:
            last.set()
        assert answers[2].result(5) == [1]


def test_everyone_is_answered_whatever_is_asked_for_together() -> None:
    def work(key: str, items: Sequence[int]) -> list[int]:
        assert len(items) <= 8
        time.sleep(0.0002 * dice.random())
        if 13 in items:
            raise ValueError("a bad batch")
        return [-item if key == "negative" else item for item in items]

    def ask(n: int) -> str:
        own = random.Random(n)
        key = own.choice(["positive", "negative"])
        items = [own.randrange(14 if n % 10 == 0 else 13) for _ in range(own.randrange(30))]
        try:
            with patience.of(own.choice([1e-4, 1e-2, 60])):
                found = batcher.do(key, items)
        except Problem as problem:
            assert problem.status == 503
            return "late"
        except ValueError:
            return "bad"
        assert found == [-item if key == "negative" else item for item in items]
        return "done"

    dice, batcher = random.Random(0), Batcher(work, 8)
    answers: list[Future[str]] = []
    with ThreadPoolExecutor(32) as pool:
        answers += [pool.submit(ask, n) for n in range(1000)]
        assert {answer.result(30) for answer in answers} == {"late", "bad", "done"}
    assert batcher.do("positive", [1]) == [1]  # no one is left at work


def test_an_error_is_that_of_its_batch_alone() -> None:
    work = Work()
    batcher = Batcher(work, 4)
    work.go.set()
    with pytest.raises(ValueError, match="a bad batch"):
        batcher.do("a", [-1])
    assert batcher.do("a", [1]) == [2]


def test_what_waits_too_long_is_not_done() -> None:
    work = Work()
    batcher = Batcher(work, 4)

    def hurried() -> list[int]:
        with patience.of(0.05):
            return batcher.do("a", [1])

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batcher.do, "first", [0])
        assert work.begun.wait(10)
        late, patient = pool.submit(hurried), pool.submit(batcher.do, "a", [2])
        time.sleep(0.2)
        work.go.set()
        with pytest.raises(Problem) as caught:
            late.result(10)
        assert caught.value.status == 503
        assert (first.result(10), patient.result(10)) == ([0], [4])
    assert work.batches == [("first", [0]), ("a", [2])]


def test_a_request_that_has_begun_is_brought_to_its_end() -> None:
    work = Work()
    work.go.set()
    with patience.of(0.03):
        assert Batcher(work, 1).do("a", list(range(8))) == list(range(0, 16, 2))


def test_each_is_told_its_time_in_the_queue_and_that_of_its_batch() -> None:
    work = Work()
    batcher = Batcher(work, 4)

    def asked() -> stages.Spent:
        with stages.collected() as spent:
            batcher.do("a", [1])
        return spent

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(asked)
        assert work.begun.wait(10)
        second = pool.submit(asked)
        time.sleep(0.1)
        work.go.set()
        assert first.result(10)["queue"] < 0.1 <= second.result(10)["queue"]
        assert second.result(10)["encode"] >= 0.01
