"""What goes into the database and comes out of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["created", "replaced", "unchanged"]


class Keep:
    """Metadata that was not given: keep what is there."""


KEEP = Keep()


@dataclass(frozen=True)
class Put:
    """One picture to store. metadata: JSON text, None to clear, KEEP to leave as it is."""

    id: str
    code: bytes
    sha256: str
    width: int
    height: int
    bytes: int
    metadata: str | Keep | None


@dataclass(frozen=True)
class Stored:
    """What became of a Put, and the seq of its code."""

    status: Status
    seq: int


class OtherModel(Exception):
    """The database holds codes of another model than the caller's."""


@dataclass(frozen=True)
class Change:
    """One feed row: the seq taken out, if any, and the code put in as ``seq``, if any."""

    seq: int
    removes: int | None
    code: bytes | None
    created: float = 0.0


@dataclass(frozen=True)
class Mark:
    """A place in the history of the database: a feed number and when it was drawn. Another
    history, as after a fail-over that lost writes, has other times at the same numbers."""

    seq: int
    created: float


BEGINNING = Mark(0, 0.0)


@dataclass(frozen=True)
class Changes:
    """A page of the feed, and what was settled when it was read.

    last: the mark of the change the reader has seen last, None where it is not in the feed.
    pruned: the newest number that was taken out of the feed; a reader further behind has
    missed changes. model: the id of the active model.
    """

    page: list[Change]
    last: Mark | None
    pruned: int
    model: str | None


@dataclass(frozen=True)
class Resolved:
    """stored: seq -> (id, metadata). changes: those after the feed number asked for; not
    ``whole`` where there are more, or some were pruned. model: the id of the active one."""

    stored: dict[int, tuple[str, str | None]]
    changes: list[Change]
    whole: bool
    model: str | None


@dataclass(frozen=True)
class Snapshot:
    """parts: lists of (seq, code), in seq order."""

    head: Mark
    model: str | None
    parts: Iterator[list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Replica:
    """A running process: the feed number it has applied, said ``age`` seconds ago."""

    name: str
    applied: int
    age: float
