"""Admits a limited number of requests; the others are refused at once."""

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from service.concurrency import wait_budget
from service.concurrency.work import Work
from service.errors import Busy, WaitedTooLong
from service.telemetry import timing

R = TypeVar("R")


class Admission:
    """Bounds the requests in progress. Use it from the event loop only.

    ``limit``: requests admitted at once. ``threads``: how many of them may block, or hold much
    memory, at the same time. ``seconds``: how long an admitted request may wait in all queues.
    ``decode_seconds``: processor time that decoding its images may take.
    """

    def __init__(
        self,
        limit: int,
        threads: int,
        seconds: float = math.inf,
        decode_seconds: float = math.inf,
    ) -> None:
        self.limit, self.seconds, self.decode_seconds = limit, seconds, decode_seconds
        self._inside: set[Work] = set()
        self._turns = CapacityLimiter(threads)
        self._threads = CapacityLimiter(math.inf)  # the turns are the limit

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Admits one request and gives it a wait budget of ``seconds``.

        Enter it before the body is read: that bounds the memory of all bodies. If ``limit``
        requests are admitted already, the one whose body comes too slowly gives up its place;
        without such a one, raises Busy at once.
        """
        if self.admitted >= self.limit and not self._end_slowest():
            raise Busy(f"{self.limit} requests are being handled; try again")
        with wait_budget.limited(self.seconds, self.decode_seconds):
            work = wait_budget.current().work
            self._inside.add(work)
            try:
                yield
            finally:
                self._inside.remove(work)

    @property
    def admitted(self) -> int:
        """The number of requests in progress."""
        return len(self._inside)

    def _end_slowest(self) -> bool:
        """Ends a request whose body comes too slowly; returns False if there is none."""
        bodies = [work.receiving for work in self._inside if work.receiving is not None]
        slow = [body for body in bodies if body.replaceable]
        if not slow:
            return False
        slowest = min(slow, key=lambda body: body.rate)
        slowest.end("the body came too slowly, and another request waited for its place")
        return True

    async def run(self, work: Callable[[], R]) -> R:
        """Runs blocking work on a thread when it is its turn.

        Raises WaitedTooLong if the wait budget is spent first. Work that has begun is never
        interrupted.
        """
        async with self.turn():
            return await self.on_thread(work)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for one of the ``threads`` turns and holds it. Raises WaitedTooLong."""
        budget, asked, borrower = wait_budget.current(), time.perf_counter(), object()
        try:
            with timing.stage("queue"), anyio.fail_after(budget.left):
                await self._turns.acquire_on_behalf_of(borrower)
        except TimeoutError as error:
            raise WaitedTooLong from error
        budget.left -= time.perf_counter() - asked
        try:
            yield
        finally:
            self._turns.release_on_behalf_of(borrower)

    async def on_thread(self, work: Callable[[], R]) -> R:
        """Runs work on a thread at once: for a caller that holds a turn, or needs little time."""
        return await to_thread.run_sync(_measured, work, limiter=self._threads)


def _measured(work: Callable[[], R]) -> R:
    with timing.working():
        return work()
