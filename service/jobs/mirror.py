"""Keeps the catalogue equal to a source: remembers what came from it, and deletes what is gone."""

import time
from collections.abc import Iterable, Mapping, Sequence

from service.database.job_records import MirroredEntry
from service.database.store import Store
from service.errors import SourceError, TooMuchGone
from service.sources.entries import Entry

LONGEST_SOURCE = 1024  # characters, which an index of Postgres can hold
DELETED_TOGETHER = 1000  # images, in one transaction
# Of a source; more is not deleted without being asked for, and neither are all.
LARGE_SHARE, FEW = 0.5, 10


class Mirror:
    """What came from one source, a path or a URL. ``number``: of this pass over it, which is later
    than all that began before.

    ``unnamed``: how many entries could not even be told apart, such as broken lines of a manifest.
    """

    def __init__(self, store: Store, source: str) -> None:
        if len(source) > LONGEST_SOURCE:
            raise SourceError(f"a mirrored source has at most {LONGEST_SOURCE} characters")
        self.store, self.source = store, source
        self.number, self.unnamed = time.time_ns() // 1_000_000, 0

    def known(self, entries: Sequence[Entry]) -> dict[str, MirroredEntry]:
        """Returns what is remembered of entries that tell when they change, by id."""
        ids = [entry.id for entry in entries if entry.stamp]
        return self.store.mirrors.known(self.source, ids) if ids else {}

    def see(self, stored: Iterable[tuple[Entry, str]], failed: Iterable[Entry]) -> None:
        """Remembers entries, each with the sha256 of the bytes that are stored; entries that
        failed are not gone."""
        seen = [
            MirroredEntry(entry.name.replace("\0", "\ufffd"), entry.id, sha256, entry.stamp)
            for entry, sha256 in stored
        ]
        failures = [*failed]
        unused = [entry.id for entry in failures if entry.id]
        self.unnamed += len(failures) - len(unused)
        self.store.mirrors.see(self.source, self.number, seen, unused)

    def gone(self) -> list[MirroredEntry]:
        """Returns the entries that this pass has not seen; none if one could not be told apart."""
        if self.unnamed:
            return []
        return self.store.mirrors.gone(self.source, self.number)

    def delete(self, gone: Sequence[MirroredEntry], *, all_of_them: bool = False) -> int:
        """Deletes the images of entries that are gone, and returns how many there were.

        An image stays if it has other bytes now, or if it came from another source too. Raises
        TooMuchGone, and deletes nothing, if it is a large share of the source, as when a disk is
        not mounted; ``all_of_them`` deletes it all the same.
        """
        total = self.store.mirrors.count(self.source)
        large = len(gone) > max(FEW, LARGE_SHARE * total) or 1 < total == len(gone)
        if large and not all_of_them:
            raise TooMuchGone(len(gone), total)
        deleted = 0
        for first in range(0, len(gone), DELETED_TOGETHER):
            part = gone[first : first + DELETED_TOGETHER]
            ours: Mapping[str, str] = {each.id: each.sha256 for each in part}
            unclaimed = self.store.mirrors.unclaimed(ours, self.source)
            deleted += self.store.images.delete_unchanged(unclaimed)
            # Last, so that what an outage leaves is deleted by the next pass.
            self.store.mirrors.forget(self.source, [each.id for each in part])
        return deleted
