"""Awaits work that runs on other threads."""

import asyncio
import math
import time
from concurrent.futures import Future
from typing import TypeVar

from service.concurrency import wait_budget
from service.errors import WaitedTooLong

R = TypeVar("R")
LOOK_SECONDS = 1.0  # between looks at work that has begun and outlasts the budget


async def result_of(future: Future[R]) -> R:
    """Waits for a future and returns its result, or raises its error.

    Raises WaitedTooLong, and cancels the future, if the wait budget is spent before its work
    begins, or if its queue cancels it. Work that has begun is never interrupted.
    """
    loop, budget, since = asyncio.get_running_loop(), wait_budget.current(), time.monotonic()
    timer: asyncio.TimerHandle | None = None

    def look_after(seconds: float) -> None:
        nonlocal timer
        if seconds < math.inf:
            timer = loop.call_later(seconds, look)

    def look() -> None:
        left = budget.left - (time.monotonic() - since)
        if left > 0 or not future.cancel():
            look_after(left if left > 0 else LOOK_SECONDS)

    look_after(budget.left)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise WaitedTooLong from None
    finally:
        if timer is not None:
            timer.cancel()
        future.cancel()
        # An error refers to this frame: it must not keep the future, and so itself, alive.
        del future, look, look_after
