"""Work that goes from one queue to the next without the event loop in between."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from service.concurrency import deadlines

Step = Callable[[Any], Future[Any]]
LOOK_SECONDS = 1.0  # between looks, while what has begun in time takes long


async def in_turn(first: Future[Any], *steps: Step) -> Any:
    """What comes of the last step, or the error of any: each begins with the result of the one
    before, in this context, and in the thread that one ends in, which it must not block.

    Raises Problem 503 where one still waits when patience is used up. What has begun is never
    broken off.
    """
    chain = _Chain(steps)
    chain.go_on_after(first)
    del first
    try:
        return await chain.answer
    finally:
        chain.end()
        del chain  # through it an error would hold itself, and whatever was read where it arose


class _Chain:
    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.loop, self.context = asyncio.get_running_loop(), copy_context()
        self.answer: asyncio.Future[Any] = self.loop.create_future()
        self._steps, self._waits = iter(steps), deadlines.current()
        self._timer: asyncio.TimerHandle | None = None
        self._look_after(self._waits.left)

    def go_on_after(self, under_way: Future[Any]) -> None:
        self._waiting = under_way, time.monotonic()
        under_way.add_done_callback(self._go_on)

    def end(self) -> None:
        self._waiting[0].cancel()  # nobody waits for it any more
        del self._waiting
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self, done: Future[Any]) -> None:
        if self.answer.done():  # nobody waits for it any more
            return
        if done.cancelled():
            self._tell(None, deadlines.too_late())
        elif error := done.exception():
            self._tell(None, error)
        elif (step := next(self._steps, None)) is None:
            self._tell(done.result(), None)
        else:
            try:
                self.go_on_after(self.context.run(step, done.result()))
            except BaseException as error:
                self._tell(None, error)

    def _tell(self, result: Any, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            self.loop.call_soon_threadsafe(self._end, result, error)

    def _end(self, result: Any, error: BaseException | None) -> None:
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(error)

    def _look(self) -> None:
        under_way, since = self._waiting
        left = self._waits.left - (time.monotonic() - since)
        if left > 0 or not under_way.cancel():
            self._look_after(left if left > 0 else LOOK_SECONDS)

    def _look_after(self, seconds: float) -> None:
        if seconds < math.inf:
            self._timer = self.loop.call_later(seconds, self._look)
