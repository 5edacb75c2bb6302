"""Defines the values that go into the database and come out of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["created", "replaced", "unchanged"]


class Keep:
    """The type of ``KEEP``."""


KEEP = Keep()  # the metadata of a put that leaves the stored metadata as it is


@dataclass(frozen=True)
class CopyHash:
    """A perceptual hash (``gpq.pixels.perceptual``) and its quality, 0 to 100."""

    hash: bytes
    quality: int


@dataclass(frozen=True)
class Put:
    """One image to write.

    ``codes``: the packed code of each model, by model id. ``metadata``: JSON text, None to clear
    the metadata, or KEEP. ``copy_hash``: None if it is not known.
    """

    id: str
    codes: Mapping[str, bytes]
    sha256: str
    width: int
    height: int
    bytes: int
    metadata: str | Keep | None
    copy_hash: CopyHash | None = None


@dataclass(frozen=True)
class PutOutcome:
    """The result of a put: what happened, and the seq of the image's codes."""

    status: Status
    seq: int


@dataclass(frozen=True)
class StoredImage:
    """One image as the database holds it.

    ``seq``: feed number of the put that made its codes. ``bytes``: size of the original.
    ``created``: time of that put, ISO 8601. ``metadata``: a JSON object as text, or None.
    """

    id: str
    seq: int
    sha256: str
    width: int
    height: int
    bytes: int
    created: str
    metadata: str | None


@dataclass(frozen=True)
class MissingCode:
    """An image that lacks a code of some model."""

    seq: int
    id: str
    sha256: str


@dataclass(frozen=True)
class CodeCounts:
    """Counts of one model's codes.

    ``images``: images with a code. ``unique``: distinct codes. ``largest_tie``: most images that
    share a code.
    """

    images: int
    unique: int
    largest_tie: int


@dataclass(frozen=True)
class StoredModel:
    """A model that has codes in the database.

    ``number``: its number in the codes table. ``complete``: every image has a code of it.
    ``added``: when, ISO 8601.
    """

    number: int
    id: str
    active: bool
    complete: bool
    added: str


def active_of(models: tuple[StoredModel, ...]) -> str | None:
    """Returns the id of the active model, or None."""
    return next((model.id for model in models if model.active), None)


@dataclass(frozen=True)
class Change:
    """One row of the feed.

    ``seq``: its feed number. ``removes``: the seq of the codes that it removes, or None.
    ``codes``: the codes that it adds, by model id; empty for a delete, and if the image was
    changed again since. ``describes``: the seq of the image whose metadata it replaces, or None.
    """

    seq: int
    removes: int | None
    codes: Mapping[str, bytes]
    created: float = 0.0
    describes: int | None = None


@dataclass(frozen=True)
class Mark:
    """A place in the history of the database: a feed number and when it was assigned.

    After a fail-over that lost writes, the same numbers have other times.
    """

    seq: int
    created: float


BEGINNING = Mark(0, 0.0)


@dataclass(frozen=True)
class Changes:
    """A page of the feed, and the state of the database when the page was read.

    ``last``: the mark of the change that the reader has seen last; None if it is not in the feed.
    ``pruned``: the newest number removed from the feed; a reader further behind has missed
    changes. ``models``: all models that have codes.
    """

    page: list[Change]
    last: Mark | None
    pruned: int
    models: tuple[StoredModel, ...]


@dataclass(frozen=True)
class Resolved:
    """The stored images behind some hits, and what changed since the hits were found.

    ``images``: (id, metadata) by seq. ``changes``: those after the feed number that the caller
    named; ``complete`` is False if there are more, or some were pruned. ``model``: the id of the
    active model. ``codes``: under that model, of the images that were put or described since, by
    seq.
    """

    images: dict[int, tuple[str, str | None]]
    changes: list[Change]
    complete: bool
    model: str | None
    codes: Mapping[int, bytes]


@dataclass(frozen=True)
class Snapshot:
    """All codes of one model at one moment.

    ``head``: the newest change. ``parts``: lists of (seq, code), in seq order.
    """

    head: Mark
    models: tuple[StoredModel, ...]
    parts: Iterator[list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Described:
    """The ids and the metadata of all images at one moment.

    ``head``: the number of the newest change. ``parts``: lists of (seq, id, metadata), in order.
    """

    head: int
    parts: Iterator[list[tuple[Any, ...]]]


REMOVED = -1  # in the place of ``FilterField.filled``


@dataclass(frozen=True)
class FilterField:
    """A field of the metadata whose values the database keeps in order.

    ``filled``: the seq up to which the values of images are there; None if all are, and REMOVED if
    the values of a removed field are being deleted.
    """

    number: int
    name: str
    filled: int | None

    @property
    def complete(self) -> bool:
        return self.filled is None

    @property
    def removed(self) -> bool:
        return self.filled == REMOVED


@dataclass(frozen=True)
class FieldValue:
    """A value of a field: a number, or a string with the moment that it names, if any."""

    number: float | None = None
    text: str | None = None
    moment: float | None = None


@dataclass(frozen=True)
class Bound:
    """What a filter asks of the values of a field, at least.

    ``kind``: which part of a ``FieldValue``. ``equal``: it is one of these. ``low``, ``high``: it
    is at least, and at most, this. ``prefix``: it begins so.
    """

    field: str
    kind: Literal["number", "text", "moment"]
    equal: tuple[float | str, ...] | None = None
    low: float | str | None = None
    high: float | str | None = None
    prefix: str | None = None


@dataclass(frozen=True)
class Candidates:
    """The images within a bound at one moment, at least those as of change ``seq``.

    ``head``: the newest change. ``rows``: (seq, id, metadata), in seq order.
    """

    seq: int
    head: int
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Replica:
    """A running process, as it described itself ``age`` seconds ago.

    ``applied``: the feed number that its indexes have reached. ``models``: ids of the models
    whose codes it holds. ``search_p99``: seconds; None if nobody searches there.
    """

    name: str
    applied: int
    models: frozenset[str]
    search_p99: float | None
    age: float
