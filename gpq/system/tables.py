"""Reads tables from text files in UTF-8, with errors that name the file."""

import csv
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


class TableError(ValueError):
    """A table cannot be read. The message names the file and says what is wrong."""


@contextmanager
def open_text(path: Path, opener: Callable[[str, int], int] | None = None) -> Iterator[TextIO]:
    """Opens a file in UTF-8, with or without a byte order mark; line ends stay as they are.

    ``opener``: opens the file in the place of ``os.open``; see ``open``.

    Raises TableError if the file cannot be opened or read, also later while it is read, and for
    a csv.Error.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="", opener=opener) as file:
            yield file
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path} is not UTF-8: save it as UTF-8, in a spreadsheet as “CSV UTF-8” ({error})"
        ) from error
    except (OSError, csv.Error) as error:
        raise TableError(f"{path}: {error}") from error


def csv_rows(
    path: Path,
    needed: Sequence[str],
    *,
    strict: bool,
    opener: Callable[[str, int], int] | None = None,
) -> Iterator[dict[str | None, Any]]:
    """Yields the rows of a CSV file, each as a dict by column name.

    The first line names the columns. A cell that is missing at the end of a row is None; cells
    beyond the last column are a list under the key None. ``needed``: columns that must be there.
    ``strict``: refuses quotes that do not match instead of guessing what they mean. ``opener``: see
    ``open_text``.

    Raises TableError.
    """
    with open_text(path, opener) as file:
        reader: csv.DictReader[Any] = csv.DictReader(file, strict=strict)
        require_columns(path, reader.fieldnames or (), needed)
        yield from reader


def require_columns(path: Path, columns: Collection[str], needed: Sequence[str]) -> None:
    """Raises TableError unless all of ``needed`` are in ``columns``."""
    if not set(needed) <= set(columns):
        raise TableError(
            f"{path} has the columns {', '.join(columns) or 'of an empty file'}; its first line "
            f"must name {' and '.join(map(repr, needed))}, separated by commas"
        )
