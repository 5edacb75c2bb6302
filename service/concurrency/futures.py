"""Awaits work that passes from one queue to the next on other threads."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from service.concurrency import wait_budget
from service.errors import WaitedTooLong

Step = Callable[[Any], Future[Any]]
LOOK_SECONDS = 1.0  # between looks at work that has begun and outlasts the budget


def done(result: Any) -> Future[Any]:
    """Returns a future that has its result already."""
    future: Future[Any] = Future()
    future.set_result(result)
    return future


def then(first: Future[Any], change: Callable[[Any], Any]) -> Future[Any]:
    """Returns a future with the changed result of another one, or with its error.

    If the first is cancelled, so is the other, and the other way round.
    """
    second: Future[Any] = Future()

    def pass_on(_: Future[Any]) -> None:
        if first.cancelled():
            second.cancel()
            second.set_running_or_notify_cancel()
        elif not second.set_running_or_notify_cancel():
            return
        elif error := first.exception():
            second.set_exception(error)
        else:
            second.set_result(change(first.result()))

    second.add_done_callback(lambda _: first.cancel())
    first.add_done_callback(pass_on)
    return second


async def result_of(first: Future[Any], *steps: Step) -> Any:
    """Waits for a future and then for each step, and returns the last result.

    A step gets the result of the one before, in the context of the caller. It begins on the thread
    on which the one before ended, and must not block it: passing through the event loop instead
    would leave queues idle, which costs up to a sixth of the searches a second.

    Raises the error of any step. Raises WaitedTooLong, and cancels the future, if the wait budget
    is spent before its work begins, or if its queue cancels it. Work that has begun is never
    interrupted.
    """
    chain = _Chain(steps)
    chain.wait_for(first)
    del first
    try:
        return await chain.answer
    finally:
        chain.end()
        del chain  # an error refers to this frame: it must not keep the chain, and so itself, alive


class _Chain:
    """The steps that are left, and the future that the current one waits for."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.loop, self.context = asyncio.get_running_loop(), copy_context()
        self.answer: asyncio.Future[Any] = self.loop.create_future()
        self._steps, self._budget = iter(steps), wait_budget.current()
        self._timer: asyncio.TimerHandle | None = None
        self._look_after(self._budget.left)

    def wait_for(self, future: Future[Any]) -> None:
        self._current = future, time.monotonic()
        future.add_done_callback(self._continue)

    def end(self) -> None:
        self._current[0].cancel()  # nobody waits for it any more
        del self._current
        if self._timer is not None:
            self._timer.cancel()

    def _continue(self, done: Future[Any]) -> None:
        if self.answer.done():  # nobody waits for it any more
            return
        if done.cancelled():
            self._answer(None, WaitedTooLong())
        elif error := done.exception():
            self._answer(None, error)
        elif (step := next(self._steps, None)) is None:
            self._answer(done.result(), None)
        else:
            try:
                self.wait_for(self.context.run(step, done.result()))
            except BaseException as error:
                self._answer(None, error)

    def _answer(self, result: Any, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            self.loop.call_soon_threadsafe(self._set_answer, result, error)

    def _set_answer(self, result: Any, error: BaseException | None) -> None:
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(error)

    def _look(self) -> None:
        future, since = self._current
        left = self._budget.left - (time.monotonic() - since)
        if left > 0 or not future.cancel():
            self._look_after(left if left > 0 else LOOK_SECONDS)

    def _look_after(self, seconds: float) -> None:
        if seconds < math.inf:
            self._timer = self.loop.call_later(seconds, self._look)
