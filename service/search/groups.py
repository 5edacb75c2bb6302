"""Groups hits by a field of their metadata."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from service.filters.values import Key, Metadata, distinct
from service.search.hit import Hit


@dataclass(frozen=True)
class Grouping:
    """``field``: the images of a group have the same value in it. ``size``: most hits of a group.

    An image whose field has several values belongs to several groups, one without any to none.
    """

    field: Key
    size: int


class Groups:
    """The first ``most`` groups of hits that come in order of their rank."""

    def __init__(self, grouping: Grouping, most: int) -> None:
        self.grouping, self.most = grouping, most
        self._hits: dict[Any, list[Hit]] = {}
        self._values: dict[Any, Any] = {}
        self._ids: set[str] = set()  # an image that is replaced between two scans comes twice
        self._missing = most * grouping.size  # hits, until all groups are full
        self.characters = 0  # of the metadata of all hits

    def add(self, hits: Iterable[Hit]) -> bool:
        """Adds hits. Returns whether all groups are full."""
        for hit in hits:
            if not self._missing:
                break
            if hit.id not in self._ids:
                self._add(hit)
        return not self._missing

    def hits(self) -> list[Hit]:
        """Returns the best hit of each group, in order, with the others of its group."""
        return [
            replace(first, group=self._values[key], others=tuple(others))
            for key, (first, *others) in self._hits.items()
        ]

    def _add(self, hit: Hit) -> None:
        for key, value in distinct(Metadata(hit.metadata).field(self.grouping.field).found):
            group = self._hits.get(key)
            if group is None and len(self._hits) < self.most:
                group = self._hits[key] = []
                self._values[key] = value
            if group is not None and len(group) < self.grouping.size:
                group.append(hit)
                self._ids.add(hit.id)
                self._missing -= 1
                self.characters += len(hit.metadata or "")
