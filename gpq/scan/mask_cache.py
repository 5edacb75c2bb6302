"""What is prepared once for a mask."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from gpq.scan.mask import Mask

P = TypeVar("P")


@dataclass
class _Known(Generic[P]):
    prepared: WeakKeyDictionary[P, P] = field(default_factory=WeakKeyDictionary)
    preparing: threading.Lock = field(default_factory=threading.Lock)


class MaskCache(Generic[P]):
    """Of parts of the codes what a mask leaves of them. It goes with its mask, or its part."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Mask, _Known[P]] = WeakKeyDictionary()
        self._finding = threading.Lock()

    def __len__(self) -> int:
        """Masks that are known."""
        return len(self._known)

    def ready(self, mask: Mask, parts: Sequence[P]) -> bool:
        """Whether all parts are prepared for it."""
        with self._finding:
            known = self._known.get(mask)
        return known is not None and all(part in known.prepared for part in parts)

    def left(self, mask: Mask, parts: Sequence[P], prepare: Callable[[int], P]) -> tuple[P, ...]:
        """``prepare(n)`` of parts[n], once, whoever searches."""
        with self._finding:
            known = self._known.setdefault(mask, _Known())
        with known.preparing:
            for n, part in enumerate(parts):
                if part not in known.prepared:
                    known.prepared[part] = prepare(n)
            return tuple(known.prepared[part] for part in parts)
