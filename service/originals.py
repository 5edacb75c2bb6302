"""Original bytes, addressed by their sha256; uploaded names never become paths.

An original is on disk before its row is written and is taken away only by ``sweep``,
after a grace period, so that a picture stored again meanwhile keeps its bytes.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import fsspec

from service.settings import SWEEP_GRACE_SECONDS

SWEEP_BATCH = 500
TEMPORARY = ".tmp"  # being written
ASIDE = ".swept"  # about to be removed


class Originals(Protocol):
    """Where originals are kept. Keys are sha256 hex digests."""

    keeps: bool

    def put(self, sha256: str, data: bytes) -> None:
        """Durable on return. Raises OSError."""

    def get(self, sha256: str) -> bytes | None:
        """The bytes, None where they are not kept."""

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        """Remove what is not in use and older than the grace period; returns how many."""


def open_originals(location: str) -> Originals:
    """``none``, a folder, a file:// URL, or the URL of any installed fsspec driver.

    Raises ValueError for a driver that is not there.
    """
    if location == "none":
        return NoOriginals()
    url = urlsplit(location)
    if url.scheme in ("", "file"):
        return LocalOriginals(Path(url.path))
    try:
        return RemoteOriginals(location)
    except (ValueError, ImportError) as error:
        raise ValueError(f"GPQ_IMAGE_STORE={location}: {error}") from error


class NoOriginals:
    """Keeps nothing: searches by id use the stored code."""

    keeps = False

    def put(self, sha256: str, data: bytes) -> None:
        pass

    def get(self, sha256: str) -> bytes | None:
        return None

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        return 0


class LocalOriginals:
    """Files below a folder: write, fsync, rename, fsync of the folder."""

    keeps = True

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def put(self, sha256: str, data: bytes) -> None:
        path = self._path(sha256)
        try:
            os.utime(path)  # young again: the sweep leaves it alone
            return
        except FileNotFoundError:
            pass
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"
        temporary = path.with_name(f"{sha256}.{writer}{TEMPORARY}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        for folder in (path.parent, self.root):
            _fsync_folder(folder)

    def get(self, sha256: str) -> bytes | None:
        try:
            return self._path(sha256).read_bytes()
        except FileNotFoundError:
            return None

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        """Also tidies up what killed processes left half-written or half-swept."""
        old = time.time() - SWEEP_GRACE_SECONDS
        removed = 0
        for paths in _batches(self.root.glob("??/*"), SWEEP_BATCH):
            aged = [path for path in paths if _modified(path) < old]
            aside = [path for path in paths if path.suffix == ASIDE]
            used = in_use(sorted({_sha256(path) for path in (*aged, *aside)}))
            for path in aside:
                if _sha256(path) in used:
                    _move(path, self._path(_sha256(path)))
            for path in aged:
                if path.suffix in (TEMPORARY, ASIDE):
                    path.unlink(missing_ok=True)
                elif path.name not in used:
                    removed += _remove_if_old(path, old)
        return removed

    def _path(self, sha256: str) -> Path:
        return self.root / sha256[:2] / sha256


class RemoteOriginals:
    """Any fsspec driver; as durable as its put."""

    keeps = True

    def __init__(self, url: str) -> None:
        self.files, self.root = fsspec.url_to_fs(url)

    def put(self, sha256: str, data: bytes) -> None:
        if not self.files.exists(self._path(sha256)):
            self.files.makedirs(self._path(sha256).rsplit("/", 1)[0], exist_ok=True)
            self.files.pipe_file(self._path(sha256), data)

    def get(self, sha256: str) -> bytes | None:
        try:
            return bytes(self.files.cat_file(self._path(sha256)))
        except FileNotFoundError:
            return None

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        return 0  # an object store has its own lifecycle rules

    def _path(self, sha256: str) -> str:
        return f"{self.root.rstrip('/')}/{sha256[:2]}/{sha256}"


def _modified(path: Path) -> float:
    """Seconds since the epoch; infinitely young where another sweep took the file."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _sha256(path: Path) -> str:
    return path.name.partition(".")[0]


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


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _batches(paths: Iterator[Path], size: int) -> Iterator[list[Path]]:
    batch: list[Path] = []
    for path in paths:
        batch.append(path)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
