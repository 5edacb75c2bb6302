"""Admission: so many requests at work at once, the next is told to come back."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from anyio import to_thread

from service.problems import busy

P = ParamSpec("P")
R = TypeVar("R")


class Gate:
    """Runs blocking work on threads, off the event loop; used from the event loop only."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inside = 0

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Raises Problem 429 at once where ``limit`` calls are at work or waiting."""
        if self.inside >= self.limit:
            raise busy(f"{self.limit} requests are being handled; try again")
        self.inside += 1
        try:
            return await to_thread.run_sync(lambda: work(*args, **kwargs))
        finally:
            self.inside -= 1
