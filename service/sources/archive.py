"""Reads the images of a tar archive, which may be compressed and hostile."""

import bz2
import gzip
import io
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import IO, cast

from service.errors import SourceError
from service.sources.confined import opened
from service.sources.entries import Entry, entry, failing, length, too_large

MAX_HEADER_BYTES = 8 * 2**10  # of a member, or of the whole archive
SPARSE = "sparse files are not supported"
_LONG_HEADERS = {
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
}  # fmt: skip
_CUT = tuple(
    getattr(tarfile, name)
    for name in ("EmptyHeaderError", "TruncatedHeaderError", "InvalidHeaderError")
)
_DAMAGED = (
    tarfile.TarError, EOFError, OSError, ValueError, RecursionError, zlib.error, lzma.LZMAError,
)  # fmt: skip


class Tar:
    """The files of an archive, in its order. Nothing is extracted to disk."""

    def __init__(self, path: Path, within: Path | None, max_bytes: int) -> None:
        self.path, self.within, self.max_bytes = path, within, max_bytes

    def count(self, stop: Event) -> int:
        return length(self._members(stop))

    def entries(self, stop: Event) -> Iterator[Entry]:
        for archive, member in self._members(stop):
            if member.size > self.max_bytes:
                yield entry(member.name, {}, failing(too_large(member.size, self.max_bytes)))
                continue
            try:
                file = archive.extractfile(member)
                data = file.read() if file else b""
            except _Stopped:
                return
            except _DAMAGED as error:  # if the archive is truncated, the next member raises
                yield entry(member.name, {}, failing(str(error)))
                continue
            yield entry(member.name, {}, partial(bytes, data), size=partial(len, data))

    def _members(self, stop: Event) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        try:
            with (
                os.fdopen(opened(self.path, self.within), "rb") as file,
                _decompressed(file) as expanded,
                tarfile.open(
                    fileobj=cast(IO[bytes], _Stoppable(expanded, stop)), mode="r|", tarinfo=_Member
                ) as archive,
            ):
                for member in archive:
                    hidden = re.search(r"(^|/)\.[^./]", member.name)
                    if member.isfile() and not hidden:
                        yield archive, member
                    archive.members = []  # type: ignore[attr-defined]  # or it keeps all
        except _Stopped:
            return
        except (SourceError, *_DAMAGED) as error:
            raise SourceError(f"{self.path.name}: {error}") from error


def _decompressed(file: io.BufferedReader) -> io.BufferedIOBase:
    """Returns the content of a compressed or plain file; one read expands only what it returns."""
    first = file.peek(6)
    if first.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if first.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if first.startswith((b"\xfd7zXZ\0", b"]\0\0")):
        return lzma.LZMAFile(file)
    return file


class _Stopped(Exception):
    """Is raised by a file of ``_Stoppable``."""


class _Stoppable:
    """A file whose reads fail when ``stop`` is set, because a member may expand to terabytes."""

    def __init__(self, file: io.BufferedIOBase, stop: Event) -> None:
        self.file, self.stop = file, stop

    def read(self, size: int) -> bytes:
        if self.stop.is_set():
            raise _Stopped
        return self.file.read(size)


class _Member(tarfile.TarInfo):
    """Reports damaged headers, which tarfile takes for the end of the archive.

    A whole archive ends with blocks of zeros. Headers that would fill the memory are damaged too:
    long names, records of attributes, and maps of sparse files.
    """

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        kept = sum(len(name) + len(value) for name, value in archive.pax_headers.items())
        if self.type in _LONG_HEADERS and kept + self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has {self.size} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(SPARSE)
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError(SPARSE)

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except _CUT as error:
            raise tarfile.ReadError(f"the archive is truncated or damaged: {error}") from error
