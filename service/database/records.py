"""What goes into the database and comes out of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["created", "replaced", "unchanged"]


class Keep:
    """Metadata that was not given: keep what is there."""


KEEP = Keep()


@dataclass(frozen=True)
class Put:
    """One picture to store, with its packed code by each model's id. metadata: JSON text, None
    to clear, KEEP to leave as it is."""

    id: str
    codes: Mapping[str, bytes]
    sha256: str
    width: int
    height: int
    bytes: int
    metadata: str | Keep | None


@dataclass(frozen=True)
class Stored:
    """What became of a Put, and the seq of its codes."""

    status: Status
    seq: int


class OtherModel(Exception):
    """The database holds codes of another model than the caller's."""


class Refused(Exception):
    """What is asked for cannot be done; says why, and what to do."""


class ModelError(Refused):
    """Of a model."""


class NoSuchModel(ModelError):
    """There is no model of that id."""


@dataclass(frozen=True)
class ModelRow:
    """A model with codes in the database. whole: every picture has one. added: when, ISO 8601."""

    number: int
    id: str
    active: bool
    whole: bool
    added: str


@dataclass(frozen=True)
class Change:
    """One feed row: the seq taken out, if any, and by each model's id the code put in as
    ``seq``; none for a delete, or where that picture was changed again since."""

    seq: int
    removes: int | None
    codes: Mapping[str, bytes]
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
    missed changes. models: all that have codes.
    """

    page: list[Change]
    last: Mark | None
    pruned: int
    models: tuple[ModelRow, ...]


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
    """parts: lists of (seq, code of one model), in seq order."""

    head: Mark
    models: tuple[ModelRow, ...]
    parts: Iterator[list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Replica:
    """A running process: the feed number it has applied, the models it has the codes of, and
    the seconds its searches take, if there are any; said ``age`` seconds ago."""

    name: str
    applied: int
    models: frozenset[str]
    search_p99: float | None
    age: float


JobKind = Literal["import", "reindex"]
JobState = Literal["waiting", "running", "stopped", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """A long work and how far it is. stopped: broken off; asked for again it goes on.

    source: of an import. by_service: services do it, below GPQ_IMPORT_FOLDER, not a command.
    done: entries, failed ones among them, of total, None where that is not known yet. cursor:
    stands for their names.
    seconds: at work. detail: why it failed, or waits; of one under way what else there is to know.
    """

    number: int
    kind: JobKind
    source: str
    by_service: bool
    state: JobState
    done: int
    failed: int
    total: int | None
    cursor: str
    detail: str
    seconds: float
    created: float


class JobError(Refused):
    """Of a job."""


def active_of(models: tuple[ModelRow, ...]) -> str | None:
    """The id of the active one."""
    return next((row.id for row in models if row.active), None)
