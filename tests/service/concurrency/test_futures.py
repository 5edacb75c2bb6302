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

from service.concurrency import deadlines
from service.concurrency.futures import in_turn
from service.problems import Problem

who: ContextVar[str] = ContextVar("who", default="nobody")


def run(*steps: Callable[[Any], Any]) -> Any:
    """``in_turn`` with 1 and these steps, each by a thread of its own."""
    pools = [ThreadPoolExecutor(1, f"step-{n}") for n in range(len(steps))]

    async def main() -> Any:
        who.set("caller")
        first: Future[Any] = pools[0].submit(steps[0], 1)
        rest = [
            lambda result, pool=pool, step=step: pool.submit(step, result)
            for pool, step in zip(pools[1:], steps[1:], strict=True)
        ]
        return await in_turn(first, *rest)

    try:
        return asyncio.run(main())
    finally:
        for pool in pools:
            pool.shutdown()


def fail(result: int) -> int:
    raise ValueError(f"not {result}")


def test_each_step_has_the_result_of_the_one_before() -> None:
    assert run(lambda n: n + 1, lambda n: n * 10, str) == "20"
    assert run(lambda n: n + 1) == 2


@pytest.mark.parametrize("place", range(3))
def test_an_error_of_any_step_ends_it(place: int) -> None:
    done: list[int] = []

    def step(n: int) -> int:
        done.append(n)
        return n

    steps = [step, step, step]
    steps[place] = fail
    with pytest.raises(ValueError, match="not 1"):
        run(*steps)
    assert len(done) == place


def test_a_step_that_cannot_begin_ends_it() -> None:
    async def main() -> Any:
        first: Future[int] = Future()
        first.set_result(1)
        return await in_turn(first, fail)

    with pytest.raises(ValueError, match="not 1"):
        asyncio.run(main())


def test_steps_are_begun_in_the_context_of_who_waits_and_not_by_the_event_loop() -> None:
    seen: list[tuple[str, bool]] = []

    async def main() -> None:
        who.set("caller")
        loop = threading.get_ident()

        def begin(result: int) -> Future[int]:
            seen.append((who.get(), threading.get_ident() == loop))
            return pool.submit(int, result)

        go = threading.Event()
        first = pool.submit(lambda: go.wait(10) and 1)
        waiting = asyncio.ensure_future(in_turn(first, begin, begin))
        await asyncio.sleep(0.01)
        go.set()
        assert await waiting == 1

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main())
    assert seen == [("caller", False)] * 2


def test_what_waits_too_long_is_given_up_and_what_has_begun_is_not() -> None:
    async def late(begun: bool) -> object:
        first: Future[str] = Future()
        if begun:
            assert first.set_running_or_notify_cancel()
            threading.Timer(0.2, first.set_result, ["done"]).start()
        with deadlines.of(0.05):
            try:
                return await in_turn(first)
            except Problem as problem:
                assert first.cancelled()
                return problem.status

    assert asyncio.run(late(begun=False)) == 503
    assert asyncio.run(late(begun=True)) == "done"


def test_only_waiting_counts() -> None:
    def work(result: int) -> int:
        time.sleep(0.4)
        return result

    with deadlines.of(0.3):
        assert run(work, work, work) == 1


def test_an_error_holds_nothing_longer_than_who_has_it() -> None:
    class Read:
        pass

    def fail_with(result: int) -> int:
        read = Read()
        nonlocal held
        held = weakref.ref(read)
        raise ValueError("broken")

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool, suppress(ValueError):
            await in_turn(pool.submit(fail_with, 1))

    held: weakref.ref[Read] | None = None
    gc.disable()
    try:
        asyncio.run(main())
        assert held is not None and held() is None
    finally:
        gc.enable()


def test_nobody_is_told_what_nobody_waits_for_any_more() -> None:
    async def main() -> list[dict[str, Any]]:
        wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, told: wrong.append(told))
        first: Future[int] = Future()
        waiting = asyncio.ensure_future(in_turn(first))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert first.cancelled()
        await asyncio.sleep(0.01)
        return wrong

    assert asyncio.run(main()) == []


def test_what_has_begun_is_the_last_step_where_nobody_waits_any_more() -> None:
    begun: list[int] = []

    async def main() -> None:
        first: Future[int] = Future()
        assert first.set_running_or_notify_cancel()
        waiting = asyncio.ensure_future(in_turn(first, lambda n: begun.append(n)))  # type: ignore[func-returns-value,arg-type]
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.set_result(1)

    asyncio.run(main())
    assert begun == []
