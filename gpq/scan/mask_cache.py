"""Caches what an engine prepares for a mask."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from gpq.scan.mask import Mask

P = TypeVar("P")


@dataclass
class _Entry(Generic[P]):
    prepared: WeakKeyDictionary[P, P] = field(default_factory=WeakKeyDictionary)
    preparing: threading.Lock = field(default_factory=threading.Lock)


class MaskCache(Generic[P]):
    """Maps masks and parts of the codes to the eligible codes of those parts.

    Several threads may use it. An entry lives as long as its mask and its part.
    """

    def __init__(self) -> None:
        self._entries: WeakKeyDictionary[Mask, _Entry[P]] = WeakKeyDictionary()
        self._finding = threading.Lock()

    def __len__(self) -> int:
        """The number of masks in the cache."""
        return len(self._entries)

    def ready(self, mask: Mask, parts: Sequence[P]) -> bool:
        """Returns whether all parts are prepared for a mask."""
        with self._finding:
            entry = self._entries.get(mask)
        return entry is not None and all(part in entry.prepared for part in parts)

    def eligible(
        self, mask: Mask, parts: Sequence[P], prepare: Callable[[int], P]
    ) -> tuple[P, ...]:
        """Returns ``prepare(n)`` for each parts[n]; calls it once for each mask and part."""
        with self._finding:
            entry = self._entries.setdefault(mask, _Entry())
        with entry.preparing:
            for n, part in enumerate(parts):
                if part not in entry.prepared:
                    entry.prepared[part] = prepare(n)
            return tuple(entry.prepared[part] for part in parts)
