"""Defines the bodies of replies about jobs, models and keys, with an example for OpenAPI."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from service.database.job_records import Job, Key, Scope
from service.database.records import StoredModel
from service.http.replies.base import Reply
from service.http.replies.images import EXAMPLE_MODEL, FieldReply


class JobReply(Reply):
    number: int
    kind: Literal["import", "reindex", "duplicates"]
    source: str
    state: Literal["waiting", "running", "stopped", "done", "failed", "cancelled"]
    by_service: bool
    done: int
    failed: int
    total: int | None
    detail: str
    seconds: float
    seconds_left: float | None

    @classmethod
    def of(cls, job: Job) -> "JobReply":
        left = None
        if job.state == "running" and job.total is not None and job.done:
            left = round((job.total - job.done) * job.seconds / job.done, 1)
        rounded = {"seconds": round(job.seconds, 3), "seconds_left": left}
        return cls.model_validate(asdict(job) | rounded)

    example: ClassVar[dict[str, Any]] = {
        "number": 1,
        "kind": "import",
        "source": "new-arrivals",
        "state": "running",
        "by_service": True,
        "done": 5120,
        "failed": 2,
        "total": 20000,
        "detail": "",
        "seconds": 31.5,
        "seconds_left": 91.5,
    }


class JobsReply(Reply):
    jobs: list[JobReply]

    example: ClassVar[dict[str, Any]] = {"jobs": [JobReply.example]}


class FailureReply(Reply):
    name: str
    reason: str


class FailuresReply(Reply):
    failures: list[FailureReply]
    next_cursor: int | None

    example: ClassVar[dict[str, Any]] = {
        "failures": [
            {
                "name": "shoes/7.jpg",
                "reason": "the JPEG file cannot be decoded: image file is truncated",
            }
        ],
        "next_cursor": 1,
    }


class ModelRowReply(Reply):
    id: str
    active: bool
    ready: bool
    without_code: int
    added: str

    @classmethod
    def of(cls, model: StoredModel, without_code: int) -> "ModelRowReply":
        return cls(
            id=model.id,
            active=model.active,
            ready=model.complete,
            without_code=without_code,
            added=model.added,
        )

    example: ClassVar[dict[str, Any]] = {
        "id": EXAMPLE_MODEL,
        "active": False,
        "ready": False,
        "without_code": 15000,
        "added": "2026-05-01T10:00:00Z",
    }


class ModelsReply(Reply):
    models: list[ModelRowReply]

    example: ClassVar[dict[str, Any]] = {"models": [ModelRowReply.example]}


class ActiveReply(Reply):
    active: str
    before: str

    example: ClassVar[dict[str, Any]] = {"active": EXAMPLE_MODEL, "before": "0a" * 32}


class KeyReply(Reply):
    number: int
    name: str
    scopes: list[Scope]
    prefix: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    used: datetime | None

    example: ClassVar[dict[str, Any]] = {
        "number": 1, "name": "shop", "scopes": ["search"], "prefix": "",
        "created": "2026-11-29T12:00:00Z", "expires": "2030-01-01T00:00:00Z",
        "revoked": "2027-02-01T09:00:00Z", "used": "2026-11-29T12:30:00Z",
    }  # fmt: skip

    @classmethod
    def of(cls, key: Key) -> "KeyReply":
        return cls(
            number=key.number,
            name=key.name,
            scopes=sorted(key.scopes),
            prefix=key.prefix,
            created=_time(key.created),
            expires=_time(key.expires),
            revoked=_time(key.revoked),
            used=_time(key.used),
        )


class NewKeyReply(KeyReply):
    key: str

    example: ClassVar[dict[str, Any]] = {
        **KeyReply.example,
        "key": "gpq_(43 characters)",
    }


class KeysReply(Reply):
    keys: list[KeyReply]

    example: ClassVar[dict[str, Any]] = {"keys": [KeyReply.example]}


class FieldsReply(Reply):
    fields: list[FieldReply]

    example: ClassVar[dict[str, Any]] = {"fields": [FieldReply.example]}


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(round(seconds), UTC)
