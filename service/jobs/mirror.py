"""Keeps the catalogue equal to a source: remembers what came from it, and deletes what is gone."""

from collections.abc import Iterable, Mapping, Sequence

from service.database.records import MirroredEntry
from service.database.store import Store
from service.errors import TooMuchGone
from service.sources.entries import Entry

DELETED_TOGETHER = 500  # images, in one transaction
# Of a source; more is not deleted without being asked for, and neither are all.
LARGE_SHARE, FEW = 0.5, 10


class Mirror:
    """What came from one source, a path or a URL. ``number``: of this pass over it."""

    def __init__(self, store: Store, source: str, number: int) -> None:
        self.store, self.source, self.number = store, source, number

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
        unused = [entry.id for entry in failed if entry.id]
        self.store.mirrors.see(self.source, self.number, seen, unused)

    def gone(self) -> list[MirroredEntry]:
        """Returns the entries that this pass has not seen."""
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
            self.store.mirrors.forget(self.source, [each.id for each in part])
            ours: Mapping[str, str] = {each.id: each.sha256 for each in part}
            unclaimed = self.store.mirrors.unclaimed(ours)
            deleted += self.store.images.delete_unchanged(unclaimed)
        return deleted
