"""Measures what a request takes: the time of its stages, and of processors.

The stages are decode, queue, encode, scan and db.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

MOST_SPANS = 200  # of one request; later ones are not kept


@dataclass(frozen=True)
class Span:
    """One part of a stage; times in nanoseconds since 1970."""

    stage: str
    began_ns: int
    ended_ns: int


class Spent:
    """What a request has taken until now; any thread may add to it.

    ``stages``: seconds by stage, the sum over all threads. ``spans``: the first parts of the
    stages. ``cpu``: seconds of processors, in threads and decoding processes that worked for the
    request; not those of the event loop.
    """

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.spans: list[Span] = []
        self.cpu = 0.0
        self._changing = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Adds a part of a stage that ends now."""
        now = time.time_ns()
        with self._changing:
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds
            if len(self.spans) < MOST_SPANS:
                self.spans.append(Span(stage, now - int(seconds * 1e9), now))

    def add_cpu(self, seconds: float) -> None:
        with self._changing:
            self.cpu += seconds


_spent: ContextVar[Spent | None] = ContextVar("spent", default=None)


@contextmanager
def collected() -> Iterator[Spent]:
    """Collects what this context, and copies of it on other threads, spend."""
    spent = Spent()
    token = _spent.set(spent)
    try:
        yield spent
    finally:
        _spent.reset(token)


def current() -> Spent:
    """Returns what this context collects; a new object if it collects nothing."""
    spent = _spent.get()
    return Spent() if spent is None else spent


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Adds the duration of the context to the stage ``name``."""
    started = time.perf_counter()
    try:
        yield
    finally:
        current().add(name, time.perf_counter() - started)


@contextmanager
def working() -> Iterator[None]:
    """Adds the processor time of this thread in the context."""
    started = time.thread_time()
    try:
        yield
    finally:
        current().add_cpu(time.thread_time() - started)
