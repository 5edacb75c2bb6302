"""Sources of an import: a folder, a manifest or a tar archive, read entry by entry."""

import json
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from gpq.system.folders import files_below
from gpq.system.tables import TableError, csv_rows, open_text
from service.errors import SourceError
from service.settings import ID_PATTERN
from service.sources.archive import Tar
from service.sources.confined import LEADS_AWAY, is_within, opened
from service.sources.entries import MAX_ID_LENGTH, Entry, entry, failing, length, too_large, until

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MANIFESTS = (".csv", ".jsonl")
FIELDS = {"path", "id", "metadata"}
Row = dict[str | None, Any] | str  # a str says what is wrong with the row


class Source(Protocol):
    """A collection of entries whose order stays the same as long as the source does.

    Both methods end early when ``stop`` is set, and raise SourceError.
    """

    def count(self, stop: Event) -> int: ...

    def entries(self, stop: Event) -> Iterator[Entry]: ...


def open_source(path: Path, within: Path | None, max_bytes: int, name: str | None = None) -> Source:
    """Opens a folder, a .csv or .jsonl manifest, or a .tar archive, which may be compressed.

    ``within``: a folder outside of which nothing may be read. ``max_bytes``: size limit of one
    image. ``name``: what errors call the source; by default its path. Raises SourceError if
    ``path`` is none of these or is not within ``within``.
    """
    name = str(path) if name is None else name
    if within is not None and not is_within(path, within):
        raise SourceError(f"{name} is not within the import folder")
    if path.is_dir():
        return Folder(path, within, max_bytes)
    if not path.is_file():
        raise SourceError(f"there is no folder or file {name}")
    if path.name.lower().endswith(TARS):
        return Tar(path, within, max_bytes)
    if path.suffix.lower() in MANIFESTS:
        return Manifest(path, within, max_bytes)
    known = ", ".join((*MANIFESTS, *TARS))
    raise SourceError(f"{name} is neither a folder nor a file of a known kind ({known})")


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
                yield _of_file(path, self.within, self.max_bytes, name, {})

    def _leads_away(self, path: Path) -> bool:
        return self.within is not None and path.is_symlink() and not is_within(path, self.within)

    def _files(self) -> Iterator[Path]:
        try:
            yield from files_below(self.root, closed=self._leads_away)
        except OSError as error:
            place = os.path.relpath(error.filename, self.root)
            raise SourceError(f"{place}: {error.strerror}") from error


class Manifest:
    """A CSV file with a column ``path``, or a JSON Lines file with a key ``path``.

    Paths are relative to the manifest's folder. The optional ``id`` is the image's id, and the
    optional ``metadata`` a JSON object. All other columns and keys are added to the metadata.
    """

    def __init__(self, path: Path, within: Path | None, max_bytes: int) -> None:
        self.path, self.within, self.max_bytes = path, within, max_bytes

    def count(self, stop: Event) -> int:
        return length(until(stop, self._rows()))

    def entries(self, stop: Event) -> Iterator[Entry]:
        for number, row in enumerate(until(stop, self._rows()), 1):
            yield self._entry(row, f"{self.path.name}, entry {number}")

    def _rows(self) -> Iterator[Row]:
        of_csv = self.path.suffix.lower() == ".csv"
        try:
            yield from (_csv if of_csv else _json_lines)(self.path, self.within)
        except TableError as error:
            raise SourceError(str(error).replace(str(self.path), self.path.name)) from error
        except SourceError as error:
            raise SourceError(f"{self.path.name}: {error}") from error

    def _entry(self, row: Row, where: str) -> Entry:
        try:
            name, id, metadata = _fields(row)
            path = self.path.parent / name
            if self.within is not None and not is_within(path, self.within):
                raise ValueError(f"{name} leads out of the import folder")
            return _of_file(path, self.within, self.max_bytes, name, metadata, id)
        except (ValueError, RecursionError) as error:
            return Entry(where, "", {}, failing(str(error)))


def _of_file(
    path: Path,
    within: Path | None,
    max_bytes: int,
    name: str,
    metadata: dict[str, Any],
    id: str | None = None,
) -> Entry:
    size = partial(_size, path, max_bytes)
    return entry(name, metadata, _reader(path, within, max_bytes), id, size)


def _csv(path: Path, within: Path | None) -> Iterator[Row]:
    for row in csv_rows(path, ["path"], strict=False, opener=_opener(within)):
        yield {key: value for key, value in row.items() if value}


def _opener(within: Path | None) -> Callable[[str, int], int]:
    return lambda path, _: opened(Path(path), within)


def _json_lines(path: Path, within: Path | None) -> Iterator[Row]:
    with open_text(path, _opener(within)) as file:
        for line in file:
            if line.strip():
                try:
                    row = json.loads(line)
                    yield row if isinstance(row, dict) else "not a JSON object"
                except (ValueError, RecursionError) as error:
                    yield f"not JSON: {error}"


def _fields(row: Row) -> tuple[str, str | None, dict[str, Any]]:
    """Returns the path, the id and the metadata of a row. Raises ValueError."""
    if isinstance(row, str):
        raise ValueError(row)
    if not isinstance(row.get("path"), str):
        raise ValueError("it has no path")
    if None in row:
        raise ValueError("it has more values than the first line has columns")
    id, metadata = row.get("id"), row.get("metadata")
    if id is not None and not (isinstance(id, str) and re.fullmatch(ID_PATTERN, id)):
        raise ValueError(f"the id {str(id)[:MAX_ID_LENGTH]!r} does not match {ID_PATTERN}")
    if isinstance(metadata, str):
        metadata = json.loads(metadata)
    if not isinstance(metadata, dict | None):
        raise ValueError("metadata is not a JSON object")
    others = {key: value for key, value in row.items() if key not in FIELDS}
    return row["path"], id, {**others, **(metadata or {})}


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
