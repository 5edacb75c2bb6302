"""Keeps originals in a folder."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from gpq.system.files import replacing, sync_folders, write_together
from service.originals import claims, sweeps
from service.originals.keys import ASIDE, OURS, TEMPORARY, Parts, found, translated_errors

PART_BYTES = 2**18  # bytes read at a time


class LocalOriginals:
    """Files below a folder. A put writes, syncs and renames a file, and syncs its folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: set[Path] = set()  # folders whose own names are synced
        root.mkdir(parents=True, exist_ok=True)

    def claim(self, database: str, head: int) -> bool:
        with translated_errors(self.root):
            return claims.claim(self, self.root, database, head)

    def names(self) -> list[str]:
        return [path.name for path in self.root.iterdir() if path.suffix != TEMPORARY]

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def write(self, name: str, text: str) -> None:
        with replacing(self.root / name, self.root / f"{_writer()}{TEMPORARY}") as file:
            file.write(text.encode())

    def put(self, originals: Mapping[str, bytes]) -> None:
        paths = {self._path(sha256): data for sha256, data in originals.items()}
        folders = sorted({path.parent for path in paths})
        with translated_errors(self.root):
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            missing = {path: data for path, data in paths.items() if not _is_there(path, data)}
            write_together(missing, f".{_writer()}{TEMPORARY}")
            # Sync the folders of existing files too: their writer may have died before its sync.
            new = not self._known.issuperset(folders)
            sync_folders([*folders, self.root] if new else folders)
            self._known.update(folders)

    def has(self, sha256: str, size: int) -> bool:
        with translated_errors(self.root):
            try:
                return self._path(sha256).stat().st_size == size
            except FileNotFoundError:
                return False

    def get(self, sha256: str) -> bytes | None:
        with translated_errors(self.root), suppress(FileNotFoundError):
            return found(sha256, lambda name: self._path(name).read_bytes())
        return None

    def parts(self, sha256: str) -> Parts | None:
        def begin(name: str) -> Parts:
            with self._path(name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                return Parts(size, file.read(PART_BYTES), partial(self._part, sha256), PART_BYTES)

        with translated_errors(self.root), suppress(FileNotFoundError):
            return found(sha256, begin)
        return None

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        """Also removes files that killed processes left half-written."""
        return sweeps.sweep(self, self.root, in_use)

    def listed(self) -> Iterator[str]:
        for path in self.root.glob("??/*"):
            if OURS.fullmatch(path.name) and path.name[:2] == path.parent.name and path.is_file():
                yield path.name

    def age(self, name: str) -> float:
        return time.time() - self._path(name).stat().st_mtime

    def set_aside(self, sha256: str) -> None:
        path = self._path(sha256)
        # Touched first: if the process dies before the rename, the file only stays longer.
        os.utime(path)
        path.rename(self._path(sha256 + ASIDE))

    def restore(self, sha256: str) -> None:
        path, aside = self._path(sha256), self._path(sha256 + ASIDE)
        if path.exists():
            aside.unlink()
        else:
            aside.rename(path)

    def remove(self, name: str) -> None:
        self._path(name).unlink()

    def _part(self, sha256: str, start: int, stop: int) -> bytes:
        def read(name: str) -> bytes:
            with self._path(name).open("rb") as file:
                file.seek(start)
                return file.read(stop - start)

        with translated_errors(self.root):
            return found(sha256, read)

    def _path(self, name: str) -> Path:
        return self.root / name[:2] / name


def _writer() -> str:
    return f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"


def _is_there(path: Path, data: bytes) -> bool:
    """Returns whether an undamaged file exists. Its age is set to zero, so that no sweep removes
    it, and a file that was set aside is restored."""
    for place in (path, path.with_name(path.name + ASIDE)):
        with suppress(FileNotFoundError):
            os.utime(place)
            if place.stat().st_size != len(data) or place.read_bytes() != data:
                return False
            if place != path:
                place.rename(path)
            return True
    return False
