"""How long a request waits for its turns: in line for a thread, a decoder, and batches."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from service.problems import Problem, unavailable

R = TypeVar("R")


class Patience:
    """What is left of it, in seconds. Only waiting uses it up: what works long may go on."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def spend(self, waited: float) -> None:
        """Raises Problem 503 where so many seconds were too many."""
        self.left -= waited
        if self.left < 0:
            raise too_late()

    def hold_out(self) -> None:
        """From now on for as long as it takes: what has begun is brought to its end."""
        self.left = math.inf

    def result_of(self, under_way: Future[R]) -> R:
        """What was begun with this patience. Raises Problem 503 where it is used up and that
        still waits in a queue, which it leaves."""
        done, _ = wait([under_way], None if self.left == math.inf else max(0.0, self.left))
        if not done and under_way.cancel():
            raise too_late()
        return under_way.result()


_patience: ContextVar[Patience] = ContextVar("patience", default=Patience(math.inf))  # noqa: B039


@contextmanager
def of(seconds: float) -> Iterator[None]:
    """In all queues together, of what is asked for in this context and copies of it. What has
    begun is never broken off."""
    token = _patience.set(Patience(seconds))
    try:
        yield
    finally:
        _patience.reset(token)


def current() -> Patience:
    """Endless where nobody is waiting for a reply."""
    return _patience.get()


def too_late() -> Problem:
    """The reply to a request whose turn did not come in time."""
    return unavailable("it waited too long for its turn; try again")
