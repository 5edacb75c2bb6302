"""Work that goes from one queue to the next without the event loop in between."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any


async def in_turn(first: Future[Any], *steps: Callable[[Any], Future[Any]]) -> Any:
    """What comes of the last step, or the error of any: each begins with the result of the one
    before, in this context, and in the thread that one ends in, which it must not block."""
    loop, context, left = asyncio.get_running_loop(), copy_context(), iter(steps)
    answer = loop.create_future()

    def go_on(done: Future[Any]) -> None:
        try:
            result = done.result()
            if (step := next(left, None)) is not None:
                context.run(step, result).add_done_callback(go_on)
                return
        except BaseException as error:
            loop.call_soon_threadsafe(_end, answer, None, error)
        else:
            loop.call_soon_threadsafe(_end, answer, result, None)

    first.add_done_callback(go_on)
    return await answer


def _end(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if answer.done():  # nobody waits for it any more
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
