"""Clients that write while something else is tested."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

WRITERS = 4


@contextmanager
def writing(write: Callable[[int, int], httpx.Response]) -> Iterator[None]:
    """Calls ``write`` in WRITERS threads, with the number of the thread and of its turn.

    At the end, asserts that each reply was a success, or that there was no such image.
    """
    ended = threading.Event()
    errors: list[str] = []

    def run(number: int) -> None:
        for turn in itertools.count(1):
            if ended.is_set():
                return
            reply = write(number, turn)
            if reply.status_code not in (200, 204, 404):
                errors.append(reply.text)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert errors == []
