"""Opens the source of an import: a folder, a manifest or a tar archive."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Protocol

from service.errors import SourceError
from service.sources.archive import Tar
from service.sources.confined import is_within
from service.sources.entries import Entry
from service.sources.files import Folder
from service.sources.manifest import Manifest

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MANIFESTS = (".csv", ".jsonl")


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
