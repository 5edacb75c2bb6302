"""Admission: so many requests with a body at once, the next is told to come back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from service.problems import busy
from service.settings import WORKER_THREADS

R = TypeVar("R")


class Gate:
    """Used from the event loop only; blocking work runs on threads of its own."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inside = 0
        self._threads = CapacityLimiter(WORKER_THREADS)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One place, from before the body is read: that bounds the memory of all bodies.

        Raises Problem 429 at once where ``limit`` requests are inside.
        """
        if self.inside >= self.limit:
            raise busy(f"{self.limit} requests are being handled; try again")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def run(self, work: Callable[[], R]) -> R:
        """Run blocking work off the event loop."""
        return await to_thread.run_sync(work, limiter=self._threads)
