"""How originals are named where they are kept."""

import errno
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service import problems
from service.problems import Problem

PART_BYTES = 2**20
TEMPORARY = ".tmp"  # being written
ASIDE = ".swept"  # nothing pointed to it, see ``sweeps``
OURS = re.compile(r"[0-9a-f]{64}(\.[0-9-]+\.tmp|\.swept)?")
log = logging.getLogger("gpq.service")


@dataclass(frozen=True)
class Parts:
    """An original of ``size`` bytes: the first PART_BYTES of it, and as many from a place on, which
    raises Problem 503."""

    size: int
    first: bytes
    read: Callable[[int], bytes]

    def __iter__(self) -> Iterator[bytes]:
        """However slowly they are taken, no more than one is in memory."""
        yield self.first
        for start in range(PART_BYTES, self.size, PART_BYTES):
            yield self.read(start)


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


def places(name: str) -> tuple[str, str, str]:
    """Where an original is looked for, one after another: it may be brought back meanwhile."""
    return name, name + ASIDE, name
