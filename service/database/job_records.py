"""Defines the values of jobs, mirrors and keys that go into the database and come out of it."""

from dataclasses import dataclass
from typing import Literal

JobKind = Literal["import", "reindex", "duplicates"]
JobState = Literal["waiting", "running", "stopped", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """An import or a re-index, and its progress.

    ``source``: what an import reads. ``by_service``: services run the job, not a command.
    ``state``: a stopped job was interrupted and continues when it is requested again.
    ``done``: entries handled, ``failed`` ones among them, of ``total`` (None until counted).
    ``cursor``: identifies the entries done. ``detail``: why the job failed or waits, or what it
    does. ``seconds``: time spent working on it. ``created``: when, in seconds since the epoch.
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


@dataclass(frozen=True)
class MirroredEntry:
    """An entry of a mirrored source, and the image that it became.

    ``sha256``: of its bytes. ``stamp``: changes when the entry does; "" if that is not known.
    """

    name: str
    id: str
    sha256: str
    stamp: str


@dataclass(frozen=True)
class JobFailure:
    """An entry that a job could not use, and why. ``number``: its position among the failures."""

    number: int
    name: str
    reason: str


Scope = Literal["search", "index", "admin"]


@dataclass(frozen=True)
class Key:
    """An API key, without its secret.

    ``sha256``: of the secret, in hex. ``prefix``: what ids must begin with; "" for any. Times are
    in seconds since the epoch. ``used``: when it was last used, to a minute.
    """

    number: int
    name: str
    sha256: str
    scopes: frozenset[Scope]
    prefix: str
    created: float
    expires: float | None
    revoked: float | None
    used: float | None

    def valid(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)
