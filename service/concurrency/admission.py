"""Admission: so many requests at once, the next is told to come back."""

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from service.concurrency import deadlines
from service.problems import busy
from service.telemetry import timing

R = TypeVar("R")


class Gate:
    """Used from the event loop only; blocking work runs on threads of its own.

    limit: requests inside, of which so many ``threads`` have a turn to block, or to hold much
    memory. seconds: how long a request may wait for its turns, here and in what it asks of others.
    """

    def __init__(self, limit: int, threads: int, seconds: float = math.inf) -> None:
        self.limit, self.seconds = limit, seconds
        self.inside = 0
        self._turns = CapacityLimiter(threads)
        self._threads = CapacityLimiter(math.inf)  # the turns are the limit

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One place, from before the body is read: that bounds the memory of all bodies. What is
        inside has ``seconds`` of patience, in all queues together.

        Raises Problem 429 at once where ``limit`` requests are inside.
        """
        if self.inside >= self.limit:
            raise busy(f"{self.limit} requests are being handled; try again")
        self.inside += 1
        try:
            with deadlines.of(self.seconds):
                yield
        finally:
            self.inside -= 1

    async def run(self, work: Callable[[], R]) -> R:
        """Run blocking work off the event loop. Raises Problem 503 where its turn does not come
        while there is patience; what has begun is never broken off."""
        async with self.turn():
            return await self.blocking(work)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One of those at work. Raises as ``run``."""
        waits, asked, borrower = deadlines.current(), time.perf_counter(), object()
        try:
            with timing.stage("queue"), anyio.fail_after(waits.left):
                await self._turns.acquire_on_behalf_of(borrower)
        except TimeoutError as error:
            raise deadlines.too_late() from error
        waits.left -= time.perf_counter() - asked
        try:
            yield
        finally:
            self._turns.release_on_behalf_of(borrower)

    async def blocking(self, work: Callable[[], R]) -> R:
        """Off the event loop at once: for who has a turn, or needs neither much memory nor time."""
        return await to_thread.run_sync(work, limiter=self._threads)
