"""Keeps features on the disk from run to run, by the content of images."""

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

PLACE = "GPQ_CACHE"  # environment variable that names the folder
FOLDER = Path("~/.cache/gpq")
NAME = "features.db"
DEFAULT_GB = 10.0
GB = 10**9
BUSY_SECONDS = 60  # how long to wait for another run that writes
KEYS_AT_ONCE = 500  # in a query; SQLite may be limited to 999
USED_EVERY = 3600  # seconds; a finer record of the last use would cost a write for each read
SPARE = 0.1  # share of the limit that is freed when it is reached
TABLE = """
CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER);
CREATE INDEX IF NOT EXISTS by_use ON features (used);
"""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Usage:
    """How much a cache holds: bytes of its file that are in use, and entries."""

    place: Path
    bytes: int
    entries: int


def folder() -> Path:
    """Returns the folder of the cache: $GPQ_CACHE, or ~/.cache/gpq."""
    return Path(os.environ.get(PLACE) or FOLDER).expanduser()


class FeatureCache:
    """A table of byte strings by key, in a SQLite file that several runs may use at once.

    Entries that were not used for longest are dropped when the file exceeds ``limit`` bytes; 0
    turns the cache off. Errors of the file or the disk turn it off too, for the rest of the run,
    and are printed once: a cache is never needed.
    """

    def __init__(self, place: Path, limit: int) -> None:
        self.place, self.limit = place / NAME, limit
        self._database: sqlite3.Connection | None = None
        if limit > 0:
            self._try(self._open, None)

    @property
    def on(self) -> bool:
        return self._database is not None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns the values of those keys that are there."""
        return self._try(lambda: self._get(keys), {})

    def put(self, values: dict[bytes, bytes]) -> None:
        """Stores values, unless the disk is full."""
        self._try(lambda: self._put(values), None)

    def usage(self) -> Usage:
        """Returns what the file holds; nothing if it cannot be read."""
        return Usage(self.place, self._try(self._bytes, 0), self._try(self._entries, 0))

    def clear(self) -> None:
        """Drops all entries and gives their room on the disk back."""
        self._try(self._clear, None)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _try(self, work: Callable[[], Found], otherwise: Found) -> Found:
        if self._database is None and work != self._open:
            return otherwise
        try:
            return work()
        except (sqlite3.Error, OSError) as error:
            self._turn_off(error)
            return otherwise

    def _turn_off(self, error: Exception) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        print(
            f"features are no longer cached: {self.place}: {error}; the run goes on without",
            file=sys.stderr,
        )

    def _open(self) -> None:
        self.place.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.place, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(TABLE)
        except sqlite3.Error:
            database.close()
            raise
        self._database = database

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        assert self._database is not None
        return self._database.execute(query, values).fetchall()

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        stale: list[tuple[int, bytes]] = []
        now = int(time.time())
        for part in _parts(list(keys), KEYS_AT_ONCE):
            marks = ",".join("?" * len(part))
            query = f"SELECT key, value, used FROM features WHERE key IN ({marks})"
            for key, value, used in self._rows(query, part):
                assert isinstance(key, bytes) and isinstance(value, bytes)
                found[key] = value
                if not isinstance(used, int) or now - used > USED_EVERY:
                    stale.append((now, key))
        if stale:
            self._write("UPDATE features SET used = ? WHERE key = ?", stale)
        return found

    def _put(self, values: dict[bytes, bytes]) -> None:
        now = int(time.time())
        rows = [(key, value, now) for key, value in values.items()]
        self._write("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)
        if self._bytes() > self.limit:
            self._shrink()

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        assert self._database is not None
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.executemany(statement, rows)
            self._database.execute("COMMIT")
        except sqlite3.Error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _shrink(self) -> None:
        """Drops the entries that were not used for longest, until there is room to spare."""
        excess = self._bytes() - int((1 - SPARE) * self.limit)
        dropped = max(1, -(-self._entries() * excess // max(self._bytes(), 1)))
        self._write(
            "DELETE FROM features WHERE key IN (SELECT key FROM features ORDER BY used LIMIT ?)",
            [(dropped,)],
        )

    def _bytes(self) -> int:
        sizes = ("page_count", "freelist_count", "page_size")
        pages, free, size = (int(str(self._rows(f"PRAGMA {name}")[0][0])) for name in sizes)
        return (pages - free) * size

    def _entries(self) -> int:
        return int(str(self._rows("SELECT count(*) FROM features")[0][0]))

    def _clear(self) -> None:
        assert self._database is not None
        self._write("DELETE FROM features", [()])
        self._database.execute("VACUUM")
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _parts(items: list[bytes], size: int) -> Iterator[list[bytes]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
