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
    budget, since = wait_budget.current(), time.monotonic()
    result = asyncio.wrap_future(future)
    try:
        while not result.done():
            left = budget.left - (time.monotonic() - since)
            if left <= 0:
                if future.cancel():
                    raise WaitedTooLong
                left = LOOK_SECONDS
            await asyncio.wait([result], timeout=None if left == math.inf else left)
        if result.cancelled():
            raise WaitedTooLong
        return result.result()
    finally:
        future.cancel()
        # An error refers to this frame: it must not keep the futures, and so itself, alive.
        del future, result
