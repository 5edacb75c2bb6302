"""How originals are named where they are kept."""

import errno
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from service import problems
from service.problems import Problem

TEMPORARY = ".tmp"  # being written
ASIDE = ".swept"  # nothing pointed to it, see ``sweeps``
OURS = re.compile(r"[0-9a-f]{64}(\.[0-9-]+\.tmp|\.swept)?")
R = TypeVar("R")
log = logging.getLogger("gpq.service")


@dataclass(frozen=True)
class Parts:
    """An original of ``size`` bytes. first: those it begins with. read: those from a place to
    another, ``step`` of them; raises Problem 503."""

    size: int
    first: bytes
    read: Callable[[int, int], bytes]
    step: int

    def between(self, start: int, stop: int) -> Iterator[bytes]:
        """However slowly they are taken, no more is in memory than is read at a time."""
        for begin in range(start, stop, self.step):
            end = min(begin + self.step, stop)
            yield self.first[begin:end] if end <= len(self.first) else self.read(begin, end)


@contextmanager
def answering(root: object) -> Iterator[None]:
    """Whatever a file system or a driver raises -> Problem."""
    try:
        yield
    except Exception as error:
        log.error("the image store %s: %r", root, error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Problem(507, "disk-full", "the disk for images is full") from error
        raise problems.unavailable("the image store does not answer; try again") from error


def found(sha256: str, look: Callable[[str], R]) -> R:
    """What ``look`` finds of an original, under its name or set aside. Raises FileNotFoundError,
    as ``look`` does, where neither is there."""
    for name in (sha256, sha256 + ASIDE):
        with suppress(FileNotFoundError):
            return look(name)
    return look(sha256)  # it may have been brought back meanwhile
