"""Errors the trainer raises on purpose; the command line prints them without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class TrainerError(Exception):
    """Input or configuration that cannot be trained on; the message says what to do."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises TrainerError naming ``path`` where it cannot be written, as on a full disk."""
    try:
        yield
    except OSError as error:
        raise TrainerError(f"{path} cannot be written: {error}") from error
