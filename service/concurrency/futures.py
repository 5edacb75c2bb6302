"""Awaits work that runs on other threads."""

import asyncio
import math
import time
from concurrent.futures import Future
from typing import Any, TypeVar

from service.concurrency import wait_budget
from service.errors import WaitedTooLong

R = TypeVar("R")
LOOK_SECONDS = 1.0  # between looks at work that has begun and outlasts the budget


async def result_of(future: Future[R]) -> R:
    """Waits for a future and returns its result, or raises its error.

    Raises WaitedTooLong, and cancels the future, if the wait budget is spent before its work
    begins, or if its queue cancels it. Work that has begun is never interrupted.
    """
    limit = _Limit(future)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise WaitedTooLong from None
    finally:
        limit.end()
        future.cancel()
        # An error refers to this frame: it must not keep the future, and so itself, alive.
        del future, limit


class _Limit:
    """Cancels a future that has not begun when the wait budget is spent."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future
        self._budget, self._since = wait_budget.current(), time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._look_after(self._budget.left)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_after(self, seconds: float) -> None:
        if seconds < math.inf:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        left = self._budget.left - (time.monotonic() - self._since)
        if left > 0 or not self._future.cancel():
            self._look_after(left if left > 0 else LOOK_SECONDS)
