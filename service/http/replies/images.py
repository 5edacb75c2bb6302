"""Defines the bodies of replies, each with an example for OpenAPI."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, ClassVar, Literal

from service.catalogue.ingest import PutResult
from service.catalogue.metadata import decode_metadata
from service.copies.copies import Copy
from service.database.copy_records import CopyCounts
from service.database.records import FilterField, Replica, StoredImage
from service.http.problems import Problem, problem_of
from service.http.replies.base import Reply
from service.models.classes import ClassShare

EXAMPLE_MODEL = "f2c0b0a5ad1f4c2f8f0f6f7d9f4f0f3b0d5c8a7e6b9d4c3f2a1e0d9c8b7a6f5e"


class ItemError(Reply):
    code: str
    detail: str
    status: int

    @classmethod
    def of(cls, problem: Problem) -> "ItemError":
        return cls(code=problem.code, detail=problem.detail, status=problem.status)


class CopyReply(Reply):
    id: str
    distance: int
    mirrored: bool
    turned: int

    @classmethod
    def of(cls, copy: Copy) -> "CopyReply":
        return cls(id=copy.id, distance=copy.distance, mirrored=copy.mirrored, turned=copy.turned)

    example: ClassVar[dict[str, Any]] = {
        "id": "cat-1",
        "distance": 6,
        "mirrored": False,
        "turned": 0,
    }


class IndexItem(Reply):
    file: str
    id: str | None
    status: Literal["created", "replaced", "unchanged", "failed", "skipped"]
    error: ItemError | None = None
    copies: list[CopyReply] | None = None

    @classmethod
    def of(cls, result: PutResult) -> "IndexItem":
        item = cls(file=result.file, id=result.id, status=result.status)
        if result.error is not None and (problem := problem_of(result.error)):
            item.error = ItemError.of(problem)
        if result.copies is not None:
            item.copies = [CopyReply.of(copy) for copy in result.copies]
        return item


class IndexReply(Reply):
    errors: bool
    items: list[IndexItem]

    example = {
        "errors": True,
        "items": [
            {"file": "cat.jpg", "id": "cat-1", "status": "created"},
            {
                "file": "car.png",
                "id": "car-1",
                "status": "failed",
                "error": {
                    "code": "broken-image",
                    "detail": "the JPEG file cannot be decoded: image file is truncated",
                    "status": 400,
                },
            },
        ],
    }


class Result(Reply):
    id: str
    score: float
    metadata: dict[str, Any] | None
    of_class: float | None = None


class GroupResult(Result):
    group: str | float | bool | None = None
    others: list[Result] = []


class FacetValue(Reply):
    value: str | float | bool
    count: int


class TagReply(Reply):
    name: str
    probability: float

    example: ClassVar[dict[str, Any]] = {"name": "cat", "probability": 0.97}


class ExplanationReply(Reply):
    classes: list[TagReply]
    due_to: str


class SearchReply(Reply):
    results: list[GroupResult]
    model: str
    took_ms: float
    query: Literal["image", "original", "code", "examples"]
    total: int | None = None
    next_cursor: str | None = None
    complete: bool | None = None
    facets: dict[str, list[FacetValue]] | None = None
    explanation: ExplanationReply | None = None

    example = {
        "results": [{"id": "cat-1", "score": 0.93, "metadata": {"shelf": 3}}],
        "model": EXAMPLE_MODEL,
        "took_ms": 4.2,
        "query": "image",
        "total": 120,
        "next_cursor": "oNqXvD…",
    }


class QueryReply(Reply):
    results: list[Result] | None = None
    error: ItemError | None = None


class BatchReply(Reply):
    queries: list[QueryReply]
    model: str
    took_ms: float

    example = {
        "queries": [
            {"results": [{"id": "cat-1", "score": 0.93, "metadata": {"shelf": 3}}]},
            {"error": {"code": "empty-file", "detail": "the file is empty", "status": 400}},
        ],
        "model": EXAMPLE_MODEL,
        "took_ms": 7.9,
    }


class ImageReply(Reply):
    id: str
    seq: int
    created: str
    width: int
    height: int
    bytes: int
    metadata: dict[str, Any] | None

    @classmethod
    def of(cls, image: StoredImage) -> "ImageReply":
        return cls.model_validate(asdict(image) | {"metadata": decode_metadata(image.metadata)})

    example = {
        "id": "cat-1",
        "seq": 17,
        "created": "2026-11-21T10:47:38.120Z",
        "width": 640,
        "height": 480,
        "bytes": 48213,
        "metadata": {"shelf": 3},
    }


class TaggedReply(ImageReply):
    tags: list[TagReply]

    @classmethod
    def tagged(cls, image: StoredImage, tags: Iterable[ClassShare]) -> "TaggedReply":
        described = ImageReply.of(image).model_dump()
        return cls(**described, tags=[TagReply(**asdict(tag)) for tag in tags])

    example = {**ImageReply.example, "tags": [TagReply.example]}


class ListReply(Reply):
    images: list[ImageReply]
    next_cursor: str | None

    example = {"images": [ImageReply.example], "next_cursor": "17"}


class ModelReply(Reply):
    id: str
    bits: int
    score: str
    classes: list[str]
    mAP: float | None
    measured: dict[str, Any] | None

    example = {
        "id": EXAMPLE_MODEL,
        "bits": 48,
        "score": "cosine",
        "classes": ["airplane", "automobile"],
        "mAP": 0.757,
        "measured": {"mAP": 0.741, "mAP_tie_aware": 0.757, "n_query": 1000},
    }


class ReplicaReply(Reply):
    name: str
    applied: int
    age_s: float
    search_p99_ms: float | None = None

    @classmethod
    def of(cls, replica: Replica) -> "ReplicaReply":
        p99 = replica.search_p99
        return cls(
            name=replica.name,
            applied=replica.applied,
            age_s=round(replica.age, 3),
            search_p99_ms=None if p99 is None else round(p99 * 1000, 1),
        )


class FeedReply(Reply):
    applied: int
    head: int
    lag_s: float
    replicas: list[ReplicaReply]


class ChecksumReply(Reply):
    seq: int
    memory: str
    database: str


class NetworkReply(Reply):
    engine: str
    precision: str
    device: str
    reason: str


class FieldReply(Reply):
    name: str
    complete: bool

    @classmethod
    def of(cls, field: FilterField) -> "FieldReply":
        return cls(name=field.name, complete=field.complete)

    example: ClassVar[dict[str, Any]] = {"name": "price", "complete": True}


class CopyCountsReply(Reply):
    hashed: int
    plain: int
    unreadable: int
    waiting: int

    @classmethod
    def of(cls, counts: CopyCounts) -> "CopyCountsReply":
        return cls(
            hashed=counts.hashed,
            plain=counts.plain,
            unreadable=counts.unreadable,
            waiting=counts.waiting,
        )

    example: ClassVar[dict[str, Any]] = {"hashed": 1200, "plain": 3, "unreadable": 1, "waiting": 0}


class StatsReply(Reply):
    images: int
    engine: str
    engine_reason: str
    network: NetworkReply
    unique_codes: int
    largest_tie: int
    feed: FeedReply
    filter_fields: list[FieldReply]
    copies: CopyCountsReply | None = None
    checksum: ChecksumReply | None = None
    version: str

    example = {
        "images": 1204,
        "engine": "native",
        "engine_reason": "the fastest available, with avx512vbmi instructions; "
        "the cuda scan engine is unavailable: there is no CUDA device",
        "network": {
            "engine": "openvino",
            "precision": "float32",
            "device": "cpu",
            "reason": "the fastest available",
        },
        "unique_codes": 911,
        "largest_tie": 12,
        "feed": {
            "applied": 1310,
            "head": 1310,
            "lag_s": 0.0,
            "replicas": [
                {"name": "web-1:7:5f0c2a1b", "applied": 1310, "age_s": 0.4, "search_p99_ms": 21.5}
            ],
        },
        "filter_fields": [FieldReply.example],
        "version": "0.1.0",
    }


class StatusReply(Reply):
    status: str

    example = {"status": "ready"}


class ProblemReply(Reply):
    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request: str = ""

    example = {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no image 'cat-9'",
        "instance": "/images/cat-9",
        "code": "no-such-image",
        "request": "9f2c1e0d5b7a4c33",
    }
