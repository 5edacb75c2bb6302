"""A result of a search."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Hit:
    """One search result.

    ``metadata``: a JSON object as text, or None. ``seq``: of the image. In a search for groups,
    ``group``: the value that its group has in common; ``others``: the next hits of the group. In a
    search that is explained, ``of_class``: the part of the score that is due to the class; None if
    the image was replaced meanwhile.
    """

    id: str
    score: float
    metadata: str | None
    seq: int
    group: Any = None
    others: tuple["Hit", ...] = ()
    of_class: float | None = None
