"""Keeps originals as objects of a remote store, through fsspec."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import fsspec

from service.originals import claims, sweeps
from service.originals.keys import ASIDE, OURS, Parts, found, translated_errors
from service.originals.sweeps import GRACE_SECONDS

PART_BYTES = 2**20  # bytes requested at a time


class RemoteOriginals:
    """Objects of any fsspec driver. A put is as durable as the driver makes it."""

    def __init__(self, url: str) -> None:
        # Without the cache, writes of other processes are visible.
        self.files, root = fsspec.url_to_fs(url, use_listings_cache=False)
        self.root = root.rstrip("/")

    def claim(self, database: str, head: int) -> bool:
        with translated_errors(self.root):
            return claims.claim(self, self.root, database, head)

    def names(self) -> list[str]:
        return [str(key).rsplit("/", 1)[-1] for key in self._list("")]

    def read(self, name: str) -> str:
        return bytes(self.files.cat_file(f"{self.root}/{name}")).decode()

    def write(self, name: str, text: str) -> None:
        self.files.makedirs(self.root, exist_ok=True)
        self.files.pipe_file(f"{self.root}/{name}", text.encode())

    def put(self, originals: Mapping[str, bytes]) -> None:
        for sha256, data in originals.items():
            with translated_errors(self.root):
                if not self._is_there(sha256, data):
                    key = self._key(sha256)
                    self.files.makedirs(key.rsplit("/", 1)[0], exist_ok=True)
                    self.files.pipe_file(key, data)

    def has(self, sha256: str, size: int) -> bool:
        with translated_errors(self.root):
            return self._size(self._key(sha256)) == size

    def get(self, sha256: str) -> bytes | None:
        with translated_errors(self.root), suppress(FileNotFoundError):
            return found(sha256, lambda name: bytes(self.files.cat_file(self._key(name))))
        return None

    def parts(self, sha256: str) -> Parts | None:
        def begin(name: str) -> Parts:
            key = self._key(name)
            first = bytes(self.files.cat_file(key, start=0, end=PART_BYTES))
            size = len(first) if len(first) < PART_BYTES else int(self.files.size(key))
            return Parts(size, first, partial(self._part, sha256), PART_BYTES)

        with translated_errors(self.root), suppress(FileNotFoundError):
            return found(sha256, begin)
        return None

    def _part(self, sha256: str, start: int, stop: int) -> bytes:
        def read(name: str) -> bytes:
            return bytes(self.files.cat_file(self._key(name), start=start, end=stop))

        with translated_errors(self.root):
            return found(sha256, read)

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        return sweeps.sweep(self, self.root, in_use)

    def listed(self) -> Iterator[str]:
        for prefix in range(256):
            with translated_errors(self.root):
                keys = self._list(f"{prefix:02x}")
            names = (key.rsplit("/", 1)[1] for key in keys)
            yield from filter(OURS.fullmatch, names)

    def age(self, name: str) -> float:
        modified: datetime = self.files.modified(self._key(name))
        zoned = modified if modified.tzinfo else modified.replace(tzinfo=UTC)
        return (datetime.now(UTC) - zoned).total_seconds()

    def set_aside(self, sha256: str) -> None:
        key = self._key(sha256)
        self.files.cp_file(key, key + ASIDE)
        self.files.rm_file(key)

    def restore(self, sha256: str) -> None:
        key = self._key(sha256)
        if not self.files.exists(key):
            self.files.cp_file(key + ASIDE, key)
        self.files.rm_file(key + ASIDE)

    def remove(self, name: str) -> None:
        self.files.rm_file(self._key(name))

    def _is_there(self, sha256: str, data: bytes) -> bool:
        """Returns whether the object exists and is too young for a sweep to remove it soon."""
        try:
            young = self.age(sha256) <= GRACE_SECONDS / 2
        except FileNotFoundError:
            return False
        return young and self._size(self._key(sha256)) == len(data)

    def _size(self, key: str) -> int | None:
        """Returns the size in bytes; None if there is no such object."""
        try:
            return int(self.files.size(key))
        except FileNotFoundError:
            return None

    def _list(self, folder: str) -> list[str]:
        try:
            listed: list[str] = self.files.ls(f"{self.root}/{folder}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return listed

    def _key(self, name: str) -> str:
        return f"{self.root}/{name[:2]}/{name}"
