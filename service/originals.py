"""Original bytes, addressed by their sha256; uploaded names never become paths.

An original is on disk before its row is written and is taken away only by ``sweep``,
after a grace period, so that a picture stored again meanwhile keeps its bytes.
"""

import errno
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import fsspec

from gpq.files import replacing
from service import problems
from service.problems import Problem
from service.settings import SWEEP_GRACE_SECONDS

SWEEP_BATCH = 500
TEMPORARY = ".tmp"  # being written
ASIDE = ".swept"  # about to be removed
OWNER = "database.txt"  # names the database whose pictures these are
OURS = re.compile(r"[0-9a-f]{64}(\.[0-9-]+\.tmp|\.swept)?")
log = logging.getLogger("gpq.service")


class Originals(Protocol):
    """Where originals are kept. Keys are sha256 hex digests."""

    def claim(self, database: str) -> bool:
        """Whether the place is that of this database alone, so that it may be swept. The
        first to find it empty claims it."""

    def put(self, sha256: str, data: bytes) -> None:
        """Durable on return. Raises Problem 503, or 507 where the disk is full."""

    def get(self, sha256: str) -> bytes | None:
        """The bytes, None where they are not kept. Raises Problem 503."""

    def path(self, sha256: str) -> Path | None:
        """The file of the bytes, where they are files; it need not be there."""

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

    def claim(self, database: str) -> bool:
        return False

    def put(self, sha256: str, data: bytes) -> None:
        pass

    def get(self, sha256: str) -> bytes | None:
        return None

    def path(self, sha256: str) -> Path | None:
        return None

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        return 0


class LocalOriginals:
    """Files below a folder: write, fsync, rename, fsync of the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
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
        with _answering(self.root):
            try:
                os.utime(path)  # young again: the sweep leaves it alone
            except FileNotFoundError:
                self._write(path, data)
            # Also where another thread has written it, and not come to this yet.
            for folder in (path.parent, self.root):
                _fsync_folder(folder)

    def get(self, sha256: str) -> bytes | None:
        with _answering(self.root):
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
        for paths in _batches(self._files(), SWEEP_BATCH):
            aged = [path for path in paths if _modified(path) < old]
            aside = [path for path in paths if path.suffix == ASIDE]
            used = in_use(sorted({_sha256(path) for path in (*aged, *aside)}))
            for path in aside:
                if _sha256(path) in used:
                    _move(path, self.path(_sha256(path)))
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


class RemoteOriginals:
    """Any fsspec driver; as durable as its put. Its own life-cycle rules sweep it."""

    def __init__(self, url: str) -> None:
        self.files, self.root = fsspec.url_to_fs(url)

    def claim(self, database: str) -> bool:
        return False

    def put(self, sha256: str, data: bytes) -> None:
        with _answering(self.root):
            if not self.files.exists(self._key(sha256)):
                self.files.makedirs(self._key(sha256).rsplit("/", 1)[0], exist_ok=True)
                self.files.pipe_file(self._key(sha256), data)

    def get(self, sha256: str) -> bytes | None:
        with _answering(self.root):
            try:
                return bytes(self.files.cat_file(self._key(sha256)))
            except FileNotFoundError:
                return None

    def path(self, sha256: str) -> Path | None:
        return None

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        return 0

    def _key(self, sha256: str) -> str:
        return f"{self.root.rstrip('/')}/{sha256[:2]}/{sha256}"


@contextmanager
def _answering(root: object) -> Iterator[None]:
    """Whatever a file system or a driver raises -> Problem."""
    try:
        yield
    except Exception as error:
        log.error("the image store %s: %r", root, error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Problem(507, "disk-full", "the disk for images is full") from error
        raise problems.unavailable("the image store does not answer; try again") from error


def _writer() -> str:
    return f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"


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
