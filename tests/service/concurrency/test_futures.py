import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from service.concurrency import wait_budget
from service.concurrency.futures import result_of
from service.errors import WaitedTooLong


def run(work: Any) -> Any:
    """Awaits work that a thread of its own does."""

    async def main() -> Any:
        with ThreadPoolExecutor(1) as pool:
            return await result_of(pool.submit(work))

    return asyncio.run(main())


def fail() -> None:
    raise ValueError("not 1")


def test_the_result_of_another_thread_is_returned() -> None:
    assert run(lambda: 2) == 2


def test_the_error_of_another_thread_is_raised() -> None:
    with pytest.raises(ValueError, match="not 1"):
        run(fail)


def test_a_result_that_is_there_already_needs_no_waiting() -> None:
    async def main() -> int:
        done: Future[int] = Future()
        done.set_result(1)
        with wait_budget.limited(0):
            return await result_of(done)

    assert asyncio.run(main()) == 1


def test_what_waits_too_long_is_given_up_and_what_has_begun_is_not() -> None:
    async def late(begun: bool) -> object:
        future: Future[str] = Future()
        if begun:
            assert future.set_running_or_notify_cancel()
            threading.Timer(0.2, future.set_result, ["done"]).start()
        with wait_budget.limited(0.05):
            try:
                return await result_of(future)
            except WaitedTooLong as error:
                assert future.cancelled()
                return type(error)

    assert asyncio.run(late(begun=False)) is WaitedTooLong
    assert asyncio.run(late(begun=True)) == "done"


def test_a_queue_that_is_closed_meanwhile_ends_the_wait() -> None:
    async def main() -> None:
        future: Future[int] = Future()
        waiting = asyncio.ensure_future(result_of(future))
        await asyncio.sleep(0)
        future.cancel()
        with pytest.raises(WaitedTooLong):
            await waiting

    asyncio.run(main())


def test_only_waiting_counts() -> None:
    async def main() -> int:
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):
                await result_of(pool.submit(time.sleep, 0.4))
        return 1

    with wait_budget.limited(0.3):
        assert asyncio.run(main()) == 1


def test_an_error_holds_nothing_longer_than_its_owner() -> None:
    class Read:
        pass

    def fail_with_a_reference() -> None:
        read = Read()
        nonlocal held
        held = weakref.ref(read)
        raise ValueError("broken")

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool, suppress(ValueError):
            await result_of(pool.submit(fail_with_a_reference))

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
        future: Future[int] = Future()
        waiting = asyncio.ensure_future(result_of(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert future.cancelled()
        await asyncio.sleep(0.01)
        return wrong

    assert asyncio.run(main()) == []


def test_work_that_has_begun_is_not_disturbed_by_a_caller_that_gives_up() -> None:
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
