"""The error the trainer raises on purpose; the command line prints it without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class TrainerError(Exception):
    """The input or the configuration cannot be used. The message says what to do."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError inside the block into a TrainerError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise TrainerError(f"{path} cannot be written: {error}") from error
