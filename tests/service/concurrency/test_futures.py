import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest

from service.concurrency import wait_budget
from service.concurrency.futures import result_of
from service.errors import WaitedTooLong

who: ContextVar[str] = ContextVar("who", default="nobody")


def run(*steps: Callable[[Any], Any]) -> Any:
    """Runs these steps on the number 1, each on its own thread."""
    pools = [ThreadPoolExecutor(1, f"step-{n}") for n in range(len(steps))]

    async def main() -> Any:
        who.set("caller")
        first: Future[Any] = pools[0].submit(steps[0], 1)
        rest = [
            lambda result, pool=pool, step=step: pool.submit(step, result)
            for pool, step in zip(pools[1:], steps[1:], strict=True)
        ]
        return await result_of(first, *rest)

    try:
        return asyncio.run(main())
    finally:
        for pool in pools:
            pool.shutdown()


def fail(result: int) -> int:
    raise ValueError(f"not {result}")


def test_each_step_gets_the_result_of_the_one_before() -> None:
    assert run(lambda n: n + 1, lambda n: n * 10, str) == "20"
    assert run(lambda n: n + 1) == 2


@pytest.mark.parametrize("place", range(3))
def test_the_error_of_any_step_is_raised(place: int) -> None:
    done: list[int] = []

    def step(n: int) -> int:
        done.append(n)
        return n

    steps = [step, step, step]
    steps[place] = fail
    with pytest.raises(ValueError, match="not 1"):
        run(*steps)
    assert len(done) == place


def test_the_error_of_a_step_that_cannot_begin_is_raised() -> None:
    async def main() -> Any:
        first: Future[int] = Future()
        first.set_result(1)
        return await result_of(first, fail)

    with pytest.raises(ValueError, match="not 1"):
        asyncio.run(main())


def test_steps_begin_in_the_context_of_the_caller_and_not_on_the_event_loop() -> None:
    seen: list[tuple[str, bool]] = []

    async def main() -> None:
        who.set("caller")
        loop = threading.get_ident()

        def begin(result: int) -> Future[int]:
            seen.append((who.get(), threading.get_ident() == loop))
            return pool.submit(int, result)

        go = threading.Event()
        first = pool.submit(lambda: go.wait(10) and 1)
        waiting = asyncio.ensure_future(result_of(first, begin, begin))
        await asyncio.sleep(0.01)
        go.set()
        assert await waiting == 1

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main())
    assert seen == [("caller", False)] * 2


def test_work_that_waits_too_long_is_cancelled_and_work_that_has_begun_is_not() -> None:
    async def late(begun: bool) -> object:
        first: Future[str] = Future()
        if begun:
            assert first.set_running_or_notify_cancel()
            threading.Timer(0.2, first.set_result, ["done"]).start()
        with wait_budget.limited(0.05):
            try:
                return await result_of(first)
            except WaitedTooLong as error:
                assert first.cancelled()
                return type(error)

    assert asyncio.run(late(begun=False)) is WaitedTooLong
    assert asyncio.run(late(begun=True)) == "done"


def test_only_waiting_spends_the_budget() -> None:
    def work(result: int) -> int:
        time.sleep(0.4)
        return result

    with wait_budget.limited(0.3):
        assert run(work, work, work) == 1


def test_an_error_holds_nothing_longer_than_its_owner() -> None:
    class Read:
        pass

    def fail_with(result: int) -> int:
        read = Read()
        nonlocal held
        held = weakref.ref(read)
        raise ValueError("broken")

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool, suppress(ValueError):
            await result_of(pool.submit(fail_with, 1))

    held: weakref.ref[Read] | None = None
    gc.disable()
    try:
        asyncio.run(main())
        assert held is not None and held() is None
    finally:
        gc.enable()


def test_a_caller_that_gives_up_cancels_the_work_and_leaves_no_error() -> None:
    async def main() -> list[dict[str, Any]]:
        wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, error: wrong.append(error))
        first: Future[int] = Future()
        waiting = asyncio.ensure_future(result_of(first))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert first.cancelled()
        await asyncio.sleep(0.01)
        return wrong

    assert asyncio.run(main()) == []


def test_no_further_step_begins_after_the_caller_gave_up() -> None:
    begun: list[int] = []

    async def main() -> None:
        first: Future[int] = Future()
        assert first.set_running_or_notify_cancel()
        waiting = asyncio.ensure_future(result_of(first, lambda n: begun.append(n)))  # type: ignore[func-returns-value,arg-type]
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.set_result(1)

    asyncio.run(main())
    assert begun == []


def test_a_finished_result_spends_no_wait_budget() -> None:
    async def main() -> int:
        done: Future[int] = Future()
        done.set_result(1)
        with wait_budget.limited(0):
            return await result_of(done)

    assert asyncio.run(main()) == 1


def test_closing_the_queue_ends_the_wait() -> None:
    async def main() -> None:
        future: Future[int] = Future()
        waiting = asyncio.ensure_future(result_of(future))
        await asyncio.sleep(0)
        future.cancel()
        with pytest.raises(WaitedTooLong):
            await waiting

    asyncio.run(main())


def test_work_that_has_begun_goes_on_after_its_caller_is_cancelled() -> None:
    async def main() -> int:
        future: Future[int] = Future()
        assert future.set_running_or_notify_cancel()
        waiting = asyncio.ensure_future(result_of(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        future.set_result(1)
        await asyncio.sleep(0.01)
        return future.result()

    assert asyncio.run(main()) == 1
