"""Names the files of an image store, and translates its errors."""

import errno
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from service.errors import StorageFull, Unavailable

TEMPORARY = ".tmp"  # suffix of a file that is being written
ASIDE = ".swept"  # suffix of an original that a sweep set aside
OURS = re.compile(r"[0-9a-f]{64}(\.[0-9-]+\.tmp|\.swept)?")
R = TypeVar("R")
log = logging.getLogger("gpq.service")


@dataclass(frozen=True)
class Parts:
    """An original of ``size`` bytes, read in parts.

    ``first``: its first bytes. ``read(start, stop)``: reads at most ``step`` bytes; raises
    Unavailable.
    """

    size: int
    first: bytes
    read: Callable[[int, int], bytes]
    step: int

    def between(self, start: int, stop: int) -> Iterator[bytes]:
        """Yields the bytes from ``start`` to ``stop``; holds at most one part in memory."""
        for begin in range(start, stop, self.step):
            end = min(begin + self.step, stop)
            yield self.first[begin:end] if end <= len(self.first) else self.read(begin, end)


@contextmanager
def translated_errors(root: object) -> Iterator[None]:
    """Turns any error of a file system or a driver into StorageFull or Unavailable."""
    try:
        yield
    except Exception as error:
        log.error("the image store %s failed: %r", root, error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("the disk for images is full") from error
        raise Unavailable("the image store does not answer; try again") from error


def found(sha256: str, look: Callable[[str], R]) -> R:
    """Returns what ``look`` returns for the name of an original, or for its name as set aside.

    Raises FileNotFoundError, as ``look`` does, if neither exists.
    """
    for name in (sha256, sha256 + ASIDE):
        with suppress(FileNotFoundError):
            return look(name)
    return look(sha256)  # another process may have restored it meanwhile
