"""Reads the files of a folder."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from gpq.system.folders import files_below
from service.errors import SourceError
from service.sources.confined import LEADS_AWAY, is_within, opened
from service.sources.entries import Entry, entry, failing, length, too_large, until

RECENT_SECONDS = 2  # a file may change again without another time of change


class Folder:
    """All files below a folder, in the order of ``files_below``.

    Hidden names are skipped. A link that leads out of ``within`` is an entry that cannot be read.
    """

    def __init__(self, root: Path, within: Path | None, max_bytes: int) -> None:
        self.root, self.within, self.max_bytes = root, within, max_bytes

    def count(self, stop: Event) -> int:
        return length(until(stop, self._files()))

    def entries(self, stop: Event) -> Iterator[Entry]:
        for path in until(stop, self._files()):
            name = path.relative_to(self.root).as_posix()
            if self._leads_away(path):
                yield entry(name, {}, failing(LEADS_AWAY))
            else:
                yield of_file(path, self.within, self.max_bytes, name, {})

    def _leads_away(self, path: Path) -> bool:
        return self.within is not None and path.is_symlink() and not is_within(path, self.within)

    def _files(self) -> Iterator[Path]:
        try:
            yield from files_below(self.root, closed=self._leads_away)
        except OSError as error:
            place = os.path.relpath(error.filename, self.root)
            raise SourceError(f"{place}: {error.strerror}") from error


class SomeFiles:
    """Some files of a folder, by their paths; those that are not there are skipped."""

    def __init__(self, root: Path, paths: Sequence[Path], max_bytes: int) -> None:
        self.root, self.paths, self.max_bytes = root, paths, max_bytes

    def count(self, stop: Event) -> int:
        return length(self.entries(stop))

    def entries(self, stop: Event) -> Iterator[Entry]:
        for path in until(stop, iter(self.paths)):
            if path.is_file():
                name = path.relative_to(self.root).as_posix()
                yield of_file(path, None, self.max_bytes, name, {})


def of_file(
    path: Path,
    within: Path | None,
    max_bytes: int,
    name: str,
    metadata: dict[str, Any],
    id: str | None = None,
) -> Entry:
    size = partial(_size, path, max_bytes)
    return entry(name, metadata, _reader(path, within, max_bytes), id, size, _stamp(path))


def _reader(path: Path, within: Path | None, max_bytes: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with os.fdopen(opened(path, within), "rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > max_bytes:
                raise SourceError(too_large(size, max_bytes))
            return file.read(max_bytes)

    return read


def _size(path: Path, max_bytes: int) -> int:
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        return 0
    return size if size <= max_bytes else 0


def _stamp(path: Path) -> str:
    """Returns what changes when the file does; "" if it changed just now, or is not there."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ""
    if time.time() - found.st_mtime < RECENT_SECONDS:
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
