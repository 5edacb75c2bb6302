"""Limits how long a request waits: for a thread, a decoder, and batches."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

from service.concurrency.work import Work
from service.errors import ClientGone, WaitedTooLong

R = TypeVar("R")


class WaitBudget:
    """The seconds that a request may still wait. Only waiting spends them; work may take longer.

    ``work``: the request that waits.
    """

    def __init__(self, seconds: float, work: Work | None = None) -> None:
        self.left = seconds
        self.work = Work() if work is None else work

    def spend(self, waited: float) -> None:
        """Subtracts ``waited`` seconds. Raises WaitedTooLong if fewer were left, and ClientGone if
        nobody waits any more."""
        self.left -= waited
        if not self.work.wanted():
            raise ClientGone
        if self.left < 0:
            raise WaitedTooLong

    def lift(self) -> None:
        """Removes the limit, so that work that has begun is finished."""
        self.left = math.inf

    def result_of(self, future: Future[R]) -> R:
        """Waits for a future and returns its result.

        Raises WaitedTooLong, and cancels the future, if the budget is spent before it begins.
        """
        done, _ = wait([future], None if self.left == math.inf else max(0.0, self.left))
        if not done and future.cancel():
            raise WaitedTooLong
        return future.result()


_current: ContextVar[WaitBudget] = ContextVar("wait_budget", default=WaitBudget(math.inf))  # noqa: B039


@contextmanager
def spending(budget: WaitBudget) -> Iterator[None]:
    """Sets the budget of this context and its copies: one budget for all queues together."""
    token = _current.set(budget)
    try:
        yield
    finally:
        _current.reset(token)


def limited(seconds: float, decode_seconds: float = math.inf) -> AbstractContextManager[None]:
    """Sets a new budget of ``seconds``, for new work."""
    return spending(WaitBudget(seconds, Work(decode_seconds)))


def current() -> WaitBudget:
    """Returns the budget of this context; it is unlimited if nobody waits for a reply."""
    return _current.get()
