"""Reads the images that a manifest lists."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

from gpq.system.tables import TableError, csv_rows, open_text
from service.errors import SourceError
from service.settings import ID_PATTERN
from service.sources.confined import is_within, opened
from service.sources.entries import MAX_ID_LENGTH, Entry, failing, length, until
from service.sources.files import of_file

FIELDS = {"path", "id", "metadata"}
Row = dict[str | None, Any] | str  # a str says what is wrong with the row


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
            return of_file(path, self.within, self.max_bytes, name, metadata, id)
        except (ValueError, RecursionError) as error:
            return Entry(where, "", {}, failing(str(error)))


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
