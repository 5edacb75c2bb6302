import threading

import pytest

from service.concurrency.periodic import PeriodicThread
from service.errors import Unavailable
from tests.waiting import until


def test_a_thread_goes_on_after_any_error_and_logs_each_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[Exception | None] = [
        Unavailable("a"), Unavailable("a"), Unavailable("b"), None, Unavailable("b"), KeyError("c"),
    ]  # fmt: skip
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        error = errors[len(calls) - 1] if len(calls) <= len(errors) else None
        if error:
            raise error

    thread = PeriodicThread("work", work, 0.001, at_once=True)
    thread.start()
    until(lambda: len(calls) > len(errors))
    assert thread.stop()
    logged = [record for record in caplog.records if record.name == "gpq.service"]
    assert [record.getMessage() for record in logged] == [
        "work: a; trying again",
        "work: b; trying again",
        "work: b; trying again",
        "work: 'c'; trying again",
    ]
    assert [bool(record.exc_info) for record in logged] == [False, False, False, True]


def test_a_thread_calls_wait_after_a_success_and_sleeps_the_interval_after_an_error() -> None:
    failed, waited = threading.Event(), threading.Event()

    def work() -> None:
        if not failed.is_set():
            failed.set()
            raise Unavailable("a")

    def wait() -> None:
        assert failed.is_set()
        waited.set()
        thread.stopping.wait()

    thread = PeriodicThread("work", work, 0.01, at_once=True, wait=wait)
    thread.start()
    assert waited.wait(10)
    assert thread.stop()


def test_stop_returns_false_if_the_thread_does_not_end_in_time() -> None:
    begun, go = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(10)

    thread = PeriodicThread("work", work, 0.01, at_once=True)
    assert not thread.stop(0)  # never started
    thread = PeriodicThread("work", work, 0.01, at_once=True)
    thread.start()
    assert begun.wait(10)
    assert not thread.stop(0.01)
    go.set()
    assert thread.stop(10)
