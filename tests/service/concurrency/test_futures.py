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
    """Runs ``work`` on another thread and awaits its result."""

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


def test_a_finished_result_spends_no_wait_budget() -> None:
    async def main() -> int:
        done: Future[int] = Future()
        done.set_result(1)
        with wait_budget.limited(0):
            return await result_of(done)

    assert asyncio.run(main()) == 1


def test_work_that_waits_too_long_is_cancelled_unless_it_has_begun() -> None:
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


def test_closing_the_queue_ends_the_wait() -> None:
    async def main() -> None:
        future: Future[int] = Future()
        waiting = asyncio.ensure_future(result_of(future))
        await asyncio.sleep(0)
        future.cancel()
        with pytest.raises(WaitedTooLong):
            await waiting

    asyncio.run(main())


def test_only_the_wait_spends_the_wait_budget() -> None:
    async def main() -> int:
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):
                await result_of(pool.submit(time.sleep, 0.4))
        return 1

    with wait_budget.limited(0.3):
        assert asyncio.run(main()) == 1


def test_an_error_keeps_no_local_variable_of_the_work_alive() -> None:
    class Buffer:
        pass

    def fail_with_a_reference() -> None:
        buffer = Buffer()
        nonlocal held
        held = weakref.ref(buffer)
        raise ValueError("broken")

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool, suppress(ValueError):
            await result_of(pool.submit(fail_with_a_reference))

    held: weakref.ref[Buffer] | None = None
    gc.disable()
    try:
        asyncio.run(main())
        assert held is not None and held() is None
    finally:
        gc.enable()


def test_a_caller_that_is_cancelled_cancels_the_work_and_causes_no_error() -> None:
    async def main() -> list[dict[str, Any]]:
        errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, error: errors.append(error))
        future: Future[int] = Future()
        waiting = asyncio.ensure_future(result_of(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert future.cancelled()
        await asyncio.sleep(0.01)
        return errors

    assert asyncio.run(main()) == []


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
