"""Originals in a folder."""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from gpq.files import replacing, sync_folder
from service.originals.names import (
    ASIDE,
    OURS,
    OWNER,
    SWEEP_BATCH,
    TEMPORARY,
    answering,
    batches,
    sha256_of,
)
from service.settings import SWEEP_GRACE_SECONDS

log = logging.getLogger("gpq.service")


class LocalOriginals:
    """Files below a folder: write, fsync, rename, fsync of the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: set[Path] = set()  # folders whose names are on the disk
        root.mkdir(parents=True, exist_ok=True)

    def claim(self, database: str) -> bool:
        owner = self.root / OWNER
        if all(path.suffix == TEMPORARY for path in self.root.iterdir()):
            mine = self.root / f"{_writer()}{TEMPORARY}"
            mine.write_text(database)
            with suppress(FileExistsError):
                os.link(mine, owner)
            mine.unlink()
        if owner.exists() and owner.read_text() == database:
            return True
        log.info("%s is not swept: %s names another database, or is missing", self.root, OWNER)
        return False

    def put(self, sha256: str, data: bytes) -> None:
        path = self.path(sha256)
        with answering(self.root):
            try:
                os.utime(path)  # young again: the sweep leaves it alone
                sync_folder(path.parent)  # who has written it may not have come to this yet
            except FileNotFoundError:
                self._write(path, data)
            if path.parent not in self._known:
                sync_folder(self.root)
                self._known.add(path.parent)

    def has(self, sha256: str) -> bool:
        with answering(self.root):
            return self.path(sha256).exists()

    def get(self, sha256: str) -> bytes | None:
        with answering(self.root):
            try:
                return self.path(sha256).read_bytes()
            except FileNotFoundError:
                return None

    def path(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{_writer()}{TEMPORARY}")
        with replacing(path, temporary) as file:
            file.write(data)

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
