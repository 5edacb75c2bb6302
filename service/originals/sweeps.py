"""What nothing points to: set aside by one sweep, removed by a later one if still nothing does.

No place can look and remove at once, and a put may come between: an original that is set aside is
found there, and comes back where it is stored again, or was in use all along.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

from service.originals.keys import ASIDE, answering
from service.settings import SWEEP_GRACE_SECONDS

SWEEP_BATCH = 500


class Files(Protocol):
    """Originals in a place, under their own names and set aside, and what is half-written. Each
    raises FileNotFoundError where the file is not there any more."""

    def listed(self) -> Iterator[str]:
        """Names of ours, whatever else someone keeps there."""

    def age(self, name: str) -> float:
        """Seconds since it was stored or set aside."""

    def set_aside(self, sha256: str) -> None:
        """It is as young there as if it were new."""

    def bring_back(self, sha256: str) -> None:
        """Unless it was stored again."""

    def remove(self, name: str) -> None: ...


def sweep(files: Files, place: object, in_use: Callable[[Sequence[str]], set[str]]) -> int:
    """Returns how many originals were removed for good."""
    removed = 0
    for batch in _batches(files.listed()):
        used = in_use(sorted(set(map(_sha256_of, batch))))
        with answering(place):
            for name in batch:
                with suppress(FileNotFoundError):  # another process was first
                    removed += _sweep(files, name, _sha256_of(name) in used)
    return removed


def _sweep(files: Files, name: str, used: bool) -> bool:
    """Whether an original is gone for good."""
    sha256 = _sha256_of(name)
    if name == sha256:
        if not used and files.age(name) > SWEEP_GRACE_SECONDS:
            files.set_aside(name)
        return False
    if name.endswith(ASIDE) and used:
        files.bring_back(sha256)
        return False
    if files.age(name) <= SWEEP_GRACE_SECONDS:
        return False
    files.remove(name)
    return name.endswith(ASIDE)


def _sha256_of(name: str) -> str:
    return name.partition(".")[0]


def _batches(names: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(names, SWEEP_BATCH)):
        yield batch
