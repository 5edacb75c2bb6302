"""Sources of an import: a folder, a manifest or a tar archive, read entry by entry."""

import hashlib
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from gpq.system.folders import files_below
from gpq.system.tables import TableError, csv_rows, open_text
from service.errors import SourceError
from service.settings import ID_PATTERN

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MANIFESTS = (".csv", ".jsonl")
ESCAPED = re.compile(rb"[^A-Za-z0-9._-]")  # bytes of a name that its id has in another form
MAX_ID_LENGTH = 128
LONG_NAME_DIGITS = 32  # hexadecimal digits in the id of a name that is too long
FIELDS = {"path", "id", "metadata"}
_CUT = tuple(
    getattr(tarfile, name)
    for name in ("EmptyHeaderError", "TruncatedHeaderError", "InvalidHeaderError")
)
_DAMAGED = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)


Row = dict[str | None, Any] | str  # a str says what is wrong with the row


@dataclass(frozen=True)
class Entry:
    """One image of a source.

    ``name``: its path in the source, with / between folders. ``read``: returns its bytes; raises
    OSError or SourceError. ``size``: returns the number of bytes, or 0 if ``read`` would raise.
    """

    name: str
    id: str
    metadata: dict[str, Any]
    read: Callable[[], bytes]
    size: Callable[[], int] = int


class Source(Protocol):
    """A collection of entries whose order stays the same as long as the source does.

    Both methods raise SourceError.
    """

    def count(self) -> int: ...

    def entries(self) -> Iterator[Entry]: ...


def open_source(path: Path, within: Path | None, max_bytes: int) -> Source:
    """Opens a folder, a .csv or .jsonl manifest, or a .tar archive, which may be compressed.

    ``within``: a folder outside of which nothing may be read. ``max_bytes``: size limit of one
    image. Raises SourceError if ``path`` is none of these or is not within ``within``.
    """
    if within is not None and not _is_within(path, within):
        raise SourceError(f"{path} is not within {within}")
    if path.is_dir():
        return Folder(path, within, max_bytes)
    if not path.is_file():
        raise SourceError(f"there is no folder or file {path}")
    if path.name.lower().endswith(TARS):
        return Tar(path, max_bytes)
    if path.suffix.lower() in MANIFESTS:
        return Manifest(path, within, max_bytes)
    known = ", ".join((*MANIFESTS, *TARS))
    raise SourceError(f"{path} is neither a folder nor a file of a known kind ({known})")


def id_of(name: str) -> str:
    """Makes an id from the name of an image that has none.

    A slash becomes a colon, and every byte that an id cannot contain becomes ~HH, its value in
    hexadecimal. If that is too long, the id is the beginning of the name's SHA-256.
    """
    raw = name.encode("utf-8", "surrogateescape")
    id = ESCAPED.sub(lambda found: _escape(found[0]), raw).decode()
    return id if len(id) <= MAX_ID_LENGTH else hashlib.sha256(raw).hexdigest()[:LONG_NAME_DIGITS]


def _escape(byte: bytes) -> bytes:
    return b":" if byte == b"/" else b"~%02X" % ord(byte)


class Folder:
    """All files below a folder, in the order of ``files_below``.

    Hidden names are skipped. A link that leads out of ``within`` is an entry that cannot be read.
    """

    def __init__(self, root: Path, within: Path | None, max_bytes: int) -> None:
        self.root, self.within, self.max_bytes = root, within, max_bytes

    def count(self) -> int:
        return sum(1 for _ in self._files())

    def entries(self) -> Iterator[Entry]:
        for path in self._files():
            name = path.relative_to(self.root).as_posix()
            if self._leads_away(path):
                yield _entry(name, {}, _failing(f"the link leads out of {self.within}"))
            else:
                yield _of_file(path, self.max_bytes, name, {})

    def _leads_away(self, path: Path) -> bool:
        return self.within is not None and path.is_symlink() and not _is_within(path, self.within)

    def _files(self) -> Iterator[Path]:
        try:
            yield from files_below(self.root, closed=self._leads_away)
        except OSError as error:
            raise SourceError(f"{error.filename}: {error.strerror}") from error


class Manifest:
    """A CSV file with a column ``path``, or a JSON Lines file with a key ``path``.

    Paths are relative to the manifest's folder. The optional ``id`` is the image's id, and the
    optional ``metadata`` a JSON object. All other columns and keys are added to the metadata.
    """

    def __init__(self, path: Path, within: Path | None, max_bytes: int) -> None:
        self.path, self.within, self.max_bytes = path, within, max_bytes

    def count(self) -> int:
        return sum(1 for _ in self._rows())

    def entries(self) -> Iterator[Entry]:
        for number, row in enumerate(self._rows(), 1):
            yield self._entry(row, f"{self.path.name}, entry {number}")

    def _rows(self) -> Iterator[Row]:
        of_csv = self.path.suffix.lower() == ".csv"
        try:
            yield from _csv(self.path) if of_csv else _json_lines(self.path)
        except TableError as error:
            raise SourceError(str(error)) from error

    def _entry(self, row: Row, where: str) -> Entry:
        try:
            name, id, metadata = _fields(row)
            path = self.path.parent / name
            if self.within is not None and not _is_within(path, self.within):
                raise ValueError(f"{name} is not within {self.within}")
            return _of_file(path, self.max_bytes, name, metadata, id)
        except (ValueError, RecursionError) as error:
            return Entry(where, "", {}, _failing(str(error)))


class Tar:
    """The files of an archive, in its order. Nothing is extracted to disk."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path, self.max_bytes = path, max_bytes

    def count(self) -> int:
        return sum(1 for _ in self._members())

    def entries(self) -> Iterator[Entry]:
        for archive, member in self._members():
            if member.size > self.max_bytes:
                yield _entry(member.name, {}, _failing(_too_large(member.size, self.max_bytes)))
                continue
            try:
                file = archive.extractfile(member)
                data = file.read() if file else b""
            except _DAMAGED as error:  # if the archive is truncated, the next member raises
                yield _entry(member.name, {}, _failing(str(error)))
                continue
            yield _entry(member.name, {}, partial(bytes, data), size=partial(len, data))

    def _members(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        try:
            with tarfile.open(self.path, "r|*", tarinfo=_Member) as archive:
                for member in archive:
                    hidden = re.search(r"(^|/)\.[^./]", member.name)
                    if member.isfile() and not hidden:
                        yield archive, member
                    archive.members = []  # type: ignore[attr-defined]  # or it keeps all
        except _DAMAGED as error:
            raise SourceError(f"{self.path}: {error}") from error


class _Member(tarfile.TarInfo):
    """Reports damaged headers, which tarfile takes for the end of the archive.

    A whole archive ends with blocks of zeros.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except _CUT as error:
            raise tarfile.ReadError(f"the archive is truncated or damaged: {error}") from error


def _entry(
    name: str,
    metadata: dict[str, Any],
    read: Callable[[], bytes],
    id: str | None = None,
    size: Callable[[], int] = int,
) -> Entry:
    shown = name.encode("utf-8", "replace").decode()
    return Entry(shown, id or id_of(name), {"path": shown, **metadata}, read, size)


def _of_file(
    path: Path, max_bytes: int, name: str, metadata: dict[str, Any], id: str | None = None
) -> Entry:
    size = partial(_size, path, max_bytes)
    return _entry(name, metadata, _reader(path, max_bytes), id, size)


def _csv(path: Path) -> Iterator[Row]:
    for row in csv_rows(path, ["path"], strict=False):
        yield {key: value for key, value in row.items() if value}


def _json_lines(path: Path) -> Iterator[Row]:
    with open_text(path) as file:
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


def _reader(path: Path, max_bytes: int) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            is_file = path.is_file()
        except (OSError, ValueError) as error:
            raise SourceError(str(error)) from error
        if not is_file:
            raise SourceError("there is no such file")
        if (size := path.stat().st_size) > max_bytes:
            raise SourceError(_too_large(size, max_bytes))
        return path.read_bytes()

    return read


def _size(path: Path, max_bytes: int) -> int:
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        return 0
    return size if size <= max_bytes else 0


def _failing(reason: str) -> Callable[[], bytes]:
    def read() -> bytes:
        raise SourceError(reason)

    return read


def _too_large(size: int, max_bytes: int) -> str:
    return f"the file has {size} bytes; at most {max_bytes} are accepted (GPQ_MAX_BODY_BYTES)"


def _is_within(path: Path, folder: Path) -> bool:
    """Returns whether ``path`` is in ``folder`` once links are followed.

    A path that cannot be resolved is outside.
    """
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # the path is too long, or links form a cycle
        return False
