"""How long a request waits for its turn: in line for a thread, a decoder, or a batch."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from service.problems import Problem, unavailable

_patience: ContextVar[float] = ContextVar("patience", default=math.inf)


@contextmanager
def of(seconds: float) -> Iterator[None]:
    """In each queue, in this context and copies of it. What has begun is never broken off."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def seconds() -> float:
    """Infinite where nobody is waiting for a reply."""
    return _patience.get()


def require(waited: float) -> None:
    """Raises Problem 503 where so many seconds were too many."""
    if waited > seconds():
        raise too_late()


def too_late() -> Problem:
    """The reply to a request whose turn did not come in time."""
    return unavailable("it waited too long for its turn; try again")
