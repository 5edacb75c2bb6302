"""Originals in a folder."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gpq.files import replacing, sync_folders, write_together
from service.originals import claims
from service.originals.names import (
    ASIDE,
    OURS,
    SWEEP_BATCH,
    TEMPORARY,
    answering,
    batches,
    sha256_of,
)
from service.settings import SWEEP_GRACE_SECONDS


class LocalOriginals:
    """Files below a folder: write, fsync, rename, fsync of the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: set[Path] = set()  # folders whose names are on the disk
        root.mkdir(parents=True, exist_ok=True)

    def claim(self, database: str, head: int) -> bool:
        with answering(self.root):
            return claims.claim(self, self.root, database, head)

    def names(self) -> list[str]:
        return [path.name for path in self.root.iterdir() if path.suffix != TEMPORARY]

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def write(self, name: str, text: str) -> None:
        with replacing(self.root / name, self.root / f"{_writer()}{TEMPORARY}") as file:
            file.write(text.encode())

    def put(self, originals: Mapping[str, bytes]) -> None:
        paths = {self.path(sha256): data for sha256, data in originals.items()}
        folders = sorted({path.parent for path in paths})
        with answering(self.root):
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            missing = {path: data for path, data in paths.items() if not _is_there(path, data)}
            write_together(missing, f".{_writer()}{TEMPORARY}")
            # Of what was there too: its writer may not have come to this.
            new = not self._known.issuperset(folders)
            sync_folders([*folders, self.root] if new else folders)
            self._known.update(folders)

    def has(self, sha256: str, size: int) -> bool:
        with answering(self.root):
            try:
                return self.path(sha256).stat().st_size == size
            except FileNotFoundError:
                return False

    def get(self, sha256: str) -> bytes | None:
        with answering(self.root):
            try:
                return self.path(sha256).read_bytes()
            except FileNotFoundError:
                return None

    def path(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256

    def parts(self, sha256: str) -> None:
        return None

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        """Also tidies up what killed processes left half-written or half-swept."""
        old = time.time() - SWEEP_GRACE_SECONDS
        removed = 0
        for paths in batches(self._files(), SWEEP_BATCH):
            aged = [path for path in paths if _modified(path) < old]
            aside = [path for path in paths if path.suffix == ASIDE]
            used = in_use(sorted({sha256_of(path) for path in (*aged, *aside)}))
            for path in aside:
                if sha256_of(path) in used:
                    _move(path, self.path(sha256_of(path)))
            for path in aged:
                if path.suffix in (TEMPORARY, ASIDE):
                    path.unlink(missing_ok=True)
                elif path.name not in used:
                    removed += _remove_if_old(path, old)
        return removed

    def _files(self) -> Iterator[Path]:
        """Ours alone, whatever else someone keeps below this folder."""
        for path in self.root.glob("??/*"):
            if OURS.fullmatch(path.name) and path.name[:2] == path.parent.name and path.is_file():
                yield path


def _writer() -> str:
    return f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"


def _is_there(path: Path, data: bytes) -> bool:
    """And is undamaged; made young, so that the sweep leaves it alone."""
    try:
        os.utime(path)
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _modified(path: Path) -> float:
    """Seconds since the epoch; infinitely young where another sweep took the file."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _remove_if_old(path: Path, old: float) -> bool:
    """Move aside, look again, then remove: a put just before made it young, one after
    no longer finds it and writes it anew."""
    aside = path.with_name(path.name + ASIDE)
    if not _move(path, aside):
        return False
    if _modified(aside) >= old:
        _move(aside, path)
        return False
    aside.unlink(missing_ok=True)
    return True


def _move(path: Path, to: Path) -> bool:
    """False where another process was first."""
    try:
        path.rename(to)
    except FileNotFoundError:
        return False
    return True
