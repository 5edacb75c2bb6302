"""Bodies of successful replies, and of problems, for OpenAPI."""

from typing import Any, Literal

from pydantic import BaseModel


class ItemError(BaseModel):
    code: str
    detail: str
    status: int


class IndexItem(BaseModel):
    id: str | None
    status: Literal["created", "replaced", "unchanged", "failed"]
    error: ItemError | None = None


class IndexReply(BaseModel):
    errors: bool
    items: list[IndexItem]


class Result(BaseModel):
    id: str
    score: float
    metadata: dict[str, Any] | None


class SearchReply(BaseModel):
    results: list[Result]
    model: str
    took_ms: float
    query: Literal["image", "original", "code"]


class ImageReply(BaseModel):
    id: str
    seq: int
    created: str
    width: int
    height: int
    bytes: int
    metadata: dict[str, Any] | None


class ModelReply(BaseModel):
    id: str
    bits: int
    classes: list[str]
    mAP: float | None
    measured: dict[str, Any] | None


class StatsReply(BaseModel):
    images: int
    engine: str
    engine_reason: str
    unique_codes: int
    largest_tie: int
    feed: dict[str, int]
    version: str


class ProblemReply(BaseModel):
    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
