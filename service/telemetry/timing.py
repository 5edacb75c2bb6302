"""Where the time of a request goes: decode, queue, encode, scan, db."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Spent = dict[str, float]  # seconds by stage; of threads at once their sum

_spent: ContextVar[Spent | None] = ContextVar("spent", default=None)


@contextmanager
def collected() -> Iterator[Spent]:
    """What is spent inside, also by threads that run in a copy of this context."""
    spent: Spent = {}
    token = _spent.set(spent)
    try:
        yield spent
    finally:
        _spent.reset(token)


def current() -> Spent:
    """Of this context, for who does its work elsewhere; one of nobody where none is collected."""
    spent = _spent.get()
    return {} if spent is None else spent


def add(stage: str, seconds: float, spent: Spent | None = None) -> None:
    """To those of this context, where no others are given."""
    spent = current() if spent is None else spent
    spent[stage] = spent.get(stage, 0.0) + seconds


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the seconds until it is left."""
    started = time.perf_counter()
    try:
        yield
    finally:
        add(name, time.perf_counter() - started)
