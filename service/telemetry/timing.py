"""Measures where the time of a request goes: decode, queue, encode, scan, db."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Spent = dict[str, float]  # seconds by stage; the sum over all threads

_spent: ContextVar[Spent | None] = ContextVar("spent", default=None)


@contextmanager
def collected() -> Iterator[Spent]:
    """Collects what this context, and copies of it on other threads, spend."""
    spent: Spent = {}
    token = _spent.set(spent)
    try:
        yield spent
    finally:
        _spent.reset(token)


def current() -> Spent:
    """Returns the times collected in this context; a new dict if none are collected."""
    spent = _spent.get()
    return {} if spent is None else spent


def add(stage: str, seconds: float, spent: Spent | None = None) -> None:
    """Adds seconds to a stage of ``spent``, by default the one of this context."""
    spent = current() if spent is None else spent
    spent[stage] = spent.get(stage, 0.0) + seconds


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Adds the duration of the context to the stage ``name``."""
    started = time.perf_counter()
    try:
        yield
    finally:
        add(name, time.perf_counter() - started)
