"""Removes originals that no image uses.

One sweep sets such an original aside; a later one removes it if it is still unused. No store can
check and remove in one step, and a put may come between. So an original that was set aside can
still be read, and is restored if it is stored again or turns out to be in use.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

from service.originals.keys import ASIDE, translated_errors

SWEEP_BATCH = 500  # files looked up in the database at a time
GRACE_SECONDS = 3600  # age at which an unused original is set aside, and then removed


class Files(Protocol):
    """The files of an image store: originals, those set aside, and half-written ones.

    Every method raises FileNotFoundError if the file has disappeared.
    """

    def listed(self) -> Iterator[str]:
        """Yields the names of the files that this service wrote."""

    def age(self, name: str) -> float:
        """Returns the seconds since a file was stored or set aside."""

    def set_aside(self, sha256: str) -> None:
        """Sets an original aside; its age then starts at zero."""

    def restore(self, sha256: str) -> None:
        """Restores an original, unless it was stored again."""

    def remove(self, name: str) -> None: ...


def sweep(files: Files, place: object, in_use: Callable[[Sequence[str]], set[str]]) -> int:
    """Sets aside and removes unused originals; returns how many were removed.

    ``place``: named in log messages.
    """
    removed = 0
    for batch in _batches(files.listed()):
        used = in_use(sorted(set(map(_sha256_of, batch))))
        with translated_errors(place):
            for name in batch:
                with suppress(FileNotFoundError):  # another process removed it first
                    removed += _sweep(files, name, _sha256_of(name) in used)
    return removed


def _sweep(files: Files, name: str, used: bool) -> bool:
    """Returns whether an original was removed."""
    sha256 = _sha256_of(name)
    if name == sha256:
        if not used and files.age(name) > GRACE_SECONDS:
            files.set_aside(name)
        return False
    if name.endswith(ASIDE) and used:
        files.restore(sha256)
        return False
    if files.age(name) <= GRACE_SECONDS:
        return False
    files.remove(name)
    return name.endswith(ASIDE)


def _sha256_of(name: str) -> str:
    return name.partition(".")[0]


def _batches(names: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(names, SWEEP_BATCH)):
        yield batch
