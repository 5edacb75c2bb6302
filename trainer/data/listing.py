"""Lists image files and their labels, without reading the images."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpq.system.folders import files_below
from gpq.system.tables import TableError, csv_rows, require_columns
from trainer.errors import TrainerError

SPLITS = ("train", "database", "query")
PATH, LABELS, SPLIT = "path", "labels", "split"  # columns of a manifest
COLUMNS = (PATH, LABELS)  # every manifest must have these
SEPARATOR = "|"
MANIFESTS = (".csv", ".parquet")

Row = Mapping[str | None, Any]


@dataclass(frozen=True)
class Listing:
    """Files and their labels. A file with an empty set of labels is unlabelled."""

    files: tuple[Path, ...]
    labels: tuple[frozenset[str], ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(set().union(*self.labels)))

    def where(self, wanted: Iterable[bool]) -> "Listing":
        pairs = [pair for pair, keep in zip(self._pairs(), wanted, strict=True) if keep]
        return Listing(tuple(file for file, _ in pairs), tuple(labels for _, labels in pairs))

    def labelled(self) -> "Listing":
        return self.where(bool(labels) for labels in self.labels)

    def unlabelled(self) -> "Listing":
        return self.where(not labels for labels in self.labels)

    def _pairs(self) -> Iterator[tuple[Path, frozenset[str]]]:
        return zip(self.files, self.labels, strict=True)


def class_folders(root: Path) -> Listing:
    """Lists ``root``/<class>/** in the order of names, each file labelled by its class folder.

    Raises TrainerError if ``root`` is not a folder.
    """
    if not root.is_dir():
        raise TrainerError(f"{root} is not a folder; expected {root}/<class>/<images>")
    files: list[Path] = []
    labels: list[frozenset[str]] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and _is_visible(path)):
        inside = _below(folder)
        files += inside
        labels += [frozenset([folder.name])] * len(inside)
    return Listing(tuple(files), tuple(labels))


def files_outside_classes(root: Path) -> list[str]:
    """Returns a line for each file that is directly in ``root``, outside the class folders."""
    outside = (path for path in sorted(root.iterdir()) if path.is_file() and _is_visible(path))
    return [f"{path}: not in the folder of a class" for path in outside]


def images_below(root: Path) -> Listing:
    """Lists all files below ``root``, without labels; none if ``root`` is not a folder."""
    files = _below(root) if root.is_dir() else []
    return Listing(tuple(files), (frozenset(),) * len(files))


def is_manifest(path: Path) -> bool:
    return path.suffix.lower() in MANIFESTS


def manifest(path: Path) -> dict[str, Listing]:
    """Reads the splits of a CSV or Parquet table with columns path, labels and, optionally, split.

    Paths are relative to the table's folder. Labels are separated by ``|``; a row without labels
    is unlabelled. A missing split means train. Raises TrainerError, which names the wrong row.
    """
    found: dict[str, tuple[list[Path], list[frozenset[str]]]] = {s: ([], []) for s in SPLITS}
    first: dict[tuple[str, str], int] = {}
    for number, row in enumerate(_rows(path), start=1):
        name = (row.get(PATH) or "").strip()
        split = (row.get(SPLIT) or SPLITS[0]).strip()
        if not name:
            raise TrainerError(f"{path}: row {number} has no {PATH}")
        if split not in SPLITS:
            raise TrainerError(
                f"{path}: row {number} has {SPLIT} {split!r}: use {', '.join(SPLITS)}, "
                "or leave it empty"
            )
        if row.get(None):
            raise TrainerError(
                f"{path}: row {number} has more cells than the header: put values that contain a "
                'comma in quotes (")'
            )
        if (twin := first.setdefault((split, name), number)) != number:
            raise TrainerError(
                f"{path}: row {number} has {name!r}, as row {twin} has: give an image one row, "
                f"with all its labels, separated by {SEPARATOR}"
            )
        labels = (label.strip() for label in (row.get(LABELS) or "").split(SEPARATOR))
        files, of_files = found[split]
        files.append(path.parent / name)
        of_files.append(frozenset(label for label in labels if label))
    return {split: Listing(tuple(f), tuple(labels)) for split, (f, labels) in found.items()}


def _rows(path: Path) -> Iterable[Row]:
    try:
        return _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    except TableError as error:
        raise TrainerError(str(error)) from error


def _csv(path: Path) -> list[Row]:
    return list(csv_rows(path, COLUMNS, strict=True))


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException, parquet  # slow to import, and only needed here

    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise TrainerError(f"{path}: {error}") from error
    require_columns(path, table.column_names, COLUMNS)
    read = [name for name in (*COLUMNS, SPLIT) if name in table.column_names]
    rows = table.select(read).to_pylist()
    return ({name: _text(value) for name, value in row.items()} for row in rows)


def _text(value: Any) -> str | None:
    """Converts a Parquet cell to its text in a CSV file: lists are joined, NaN becomes None."""
    if value is None or value != value:
        return None
    return SEPARATOR.join(map(str, value)) if isinstance(value, list) else str(value)


def _below(root: Path) -> list[Path]:
    """Returns the files below a folder, sorted; a folder that several links lead to counts once.

    Includes dangling links, so that they are reported when the images are read. Raises
    TrainerError if a folder cannot be read.
    """
    try:
        paths = list(files_below(root, once=True))
    except OSError as error:
        raise TrainerError(
            f"{error.filename} cannot be read ({error.strerror}): make it readable, or move it away"
        ) from error
    return sorted(path for path in paths if path.is_file() or not path.exists())


def _is_visible(path: Path) -> bool:
    return not path.name.startswith(".")
