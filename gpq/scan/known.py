"""What is prepared once for a mask that cannot change."""

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

P = TypeVar("P")


@dataclass
class _Known(Generic[P]):
    prepared: weakref.WeakKeyDictionary[P, P] = field(default_factory=weakref.WeakKeyDictionary)
    preparing: threading.Lock = field(default_factory=threading.Lock)


class KnownMasks(Generic[P]):
    """Of parts of the codes what a mask leaves of them: for masks that cannot be written to. It
    goes with its mask, or with its part."""

    def __init__(self) -> None:
        self._known: dict[int, _Known[P]] = {}

    def __len__(self) -> int:
        """Masks that are known."""
        return len(self._known)

    def left(
        self, mask: NDArray[np.bool_], parts: Sequence[P], prepare: Callable[[int], P]
    ) -> tuple[P, ...] | None:
        """``prepare(n)`` of parts[n], once, whoever searches; nothing for a mask that can be
        written to, or is a view of one."""
        if mask.flags.writeable or mask.base is not None:
            return None
        known = self._known.get(id(mask))
        if known is None:
            known = self._known.setdefault(id(mask), _Known())
            weakref.finalize(mask, self._known.pop, id(mask), None)
        with known.preparing:
            for n, part in enumerate(parts):
                if part not in known.prepared:
                    known.prepared[part] = prepare(n)
            return tuple(known.prepared[part] for part in parts)
