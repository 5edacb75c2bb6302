"""Finds the groups of copies of the whole catalogue."""

import numpy as np

from gpq.pixels.perceptual import HASH_BYTES
from service.copies import groups
from service.database.copy_records import CopyRow
from service.database.store import Store
from service.jobs.progress import JobRun

PAGE = 10_000  # hashes read at a time


def find_duplicates(store: Store, distance: int, engine: str, run: JobRun) -> None:
    """Compares the hashes of all images, and keeps the groups instead of those of the last job.

    Raises SQLAlchemyError, ScanError.
    """
    rows = _all(store)
    run.expect(len(rows), done=0)
    if run.stop.is_set():
        return
    rows.sort(key=lambda row: row.seq)
    joined = b"".join(row.hash or b"" for row in rows)
    hashes = np.frombuffer(joined, np.uint8).reshape(len(rows), HASH_BYTES)

    def done(compared: int) -> bool:
        run.advance(compared, "", [])
        return not run.stop.is_set()

    found = groups.groups([row.seq for row in rows], hashes, distance, engine, done)
    if run.stop.is_set():
        return
    store.copies.keep_groups(run.job.number, found)
    firsts = {first for first, _ in found}
    run.outcome = f"{len(firsts)} groups of {len(found)} images"


def _all(store: Store) -> list[CopyRow]:
    rows: list[CopyRow] = []
    first = 0
    while page := store.copies.since(first, PAGE):
        rows += [row for row in page if row.hash is not None]
        first = page[-1].number + 1
    return rows
