"""Originals as objects of a remote store, or whatever else there is a driver for."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import fsspec

from service.originals import claims
from service.originals.names import (
    ASIDE,
    OURS,
    PART_BYTES,
    SWEEP_BATCH,
    Parts,
    answering,
    batches,
    sha256_of,
)
from service.settings import SWEEP_GRACE_SECONDS


class RemoteOriginals:
    """Objects of any fsspec driver; as durable as its put."""

    def __init__(self, url: str) -> None:
        # What other processes write must be seen.
        self.files, root = fsspec.url_to_fs(url, use_listings_cache=False)
        self.root = root.rstrip("/")

    def claim(self, database: str, head: int) -> bool:
        with answering(self.root):
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
            key = self._key(sha256)
            with answering(self.root):
                # Young again: the sweep leaves it alone.
                if self._age(key) > SWEEP_GRACE_SECONDS / 2 or self._size(key) != len(data):
                    self.files.makedirs(key.rsplit("/", 1)[0], exist_ok=True)
                    self.files.pipe_file(key, data)

    def has(self, sha256: str, size: int) -> bool:
        with answering(self.root):
            return self._size(self._key(sha256)) == size

    def get(self, sha256: str) -> bytes | None:
        key = self._key(sha256)
        with answering(self.root):
            for place in (key, key + ASIDE):
                with suppress(FileNotFoundError):
                    return bytes(self.files.cat_file(place))
        return None

    def path(self, sha256: str) -> Path | None:
        return None

    def parts(self, sha256: str) -> Parts | None:
        key = self._key(sha256)
        with answering(self.root):
            for place in (key, key + ASIDE):
                with suppress(FileNotFoundError):
                    first = self._part(place, 0)
                    whole = len(first) < PART_BYTES
                    size = len(first) if whole else self._size(place) or 0
                    return Parts(size, first, partial(self._answered_part, place))
        return None

    def _part(self, key: str, start: int) -> bytes:
        return bytes(self.files.cat_file(key, start=start, end=start + PART_BYTES))

    def _answered_part(self, key: str, start: int) -> bytes:
        with answering(self.root):
            return self._part(key, start)

    def sweep(self, in_use: Callable[[Sequence[str]], set[str]]) -> int:
        """What is unused is set aside, and is removed a grace period later if it still is: no
        driver can look and remove at once, and a put may come between."""
        removed = 0
        for prefix in range(256):
            with answering(self.root):
                listed = self._list(f"{prefix:02x}")
            names = (str(key).rsplit("/", 1)[1] for key in listed)
            ours = (Path(name) for name in names if OURS.fullmatch(name))
            for batch in batches(ours, SWEEP_BATCH):
                used = in_use(sorted({sha256_of(name) for name in batch}))
                with answering(self.root):
                    removed += sum(self._sweep(name, sha256_of(name) in used) for name in batch)
        return removed

    def _sweep(self, name: Path, in_use: bool) -> bool:
        """Whether it was removed for good."""
        key = self._key(sha256_of(name))
        if name.suffix == ASIDE:
            if in_use and not self.files.exists(key):
                self.files.cp_file(key + ASIDE, key)
            if in_use or self._age(key + ASIDE) > SWEEP_GRACE_SECONDS:
                self.files.rm_file(key + ASIDE)
            return not in_use and not self.files.exists(key + ASIDE)
        if not in_use and self._age(key) > SWEEP_GRACE_SECONDS:
            self.files.cp_file(key, key + ASIDE)
            self.files.rm_file(key)
        return False

    def _size(self, key: str) -> int | None:
        """In bytes; None where it is not there."""
        try:
            return int(self.files.size(key))
        except FileNotFoundError:
            return None

    def _age(self, key: str) -> float:
        """In seconds; infinitely old where it is not there."""
        try:
            modified: datetime = self.files.modified(key)
        except FileNotFoundError:
            return math.inf
        zoned = modified if modified.tzinfo else modified.replace(tzinfo=UTC)
        return (datetime.now(UTC) - zoned).total_seconds()

    def _list(self, folder: str) -> list[str]:
        try:
            listed: list[str] = self.files.ls(f"{self.root}/{folder}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return listed

    def _key(self, sha256: str) -> str:
        return f"{self.root}/{sha256[:2]}/{sha256}"
