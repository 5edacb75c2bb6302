"""POST /search and /search/batch: the nearest pictures to an upload or to a stored one."""

import json
import time
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request, Response

from service.catalogue.searcher import Answer, Hit
from service.http import forms
from service.http.forms import SearchById, SearchOptions
from service.http.routes import FILE, ReadyRuntime, body, form
from service.http.schemas import BatchReply, SearchReply
from service.problems import Problem
from service.runtime import Runtime
from service.settings import MAX_BATCH_RESULTS

router = APIRouter()

OPTIONS = SearchOptions.model_json_schema()["properties"]
SEARCH_BODY = {
    **form({"image": "(the file query.jpg)", "k": 5}, "image", image=FILE, **OPTIONS),
    "application/json": {
        "schema": SearchById.model_json_schema(),
        "example": {"id": "cat-1", "k": 5, "min_score": 0.2},
    },
}
BATCH_BODY = form(
    {"images": ["(the file one.jpg)", "(the file two.jpg)"], "k": 5},
    "images",
    images={
        "type": "array",
        "items": FILE,
        "description": f"files; images × k at most {MAX_BATCH_RESULTS}",
    },
    **OPTIONS,
)


@router.post(
    "/search",
    summary="Find the nearest pictures",
    response_model=SearchReply,
    openapi_extra=body(SEARCH_BODY),
)
async def search(request: Request, runtime: ReadyRuntime) -> Response:
    """Top-k by mean cosine, in [-1, 1], higher is nearer; ties in order of storing."""
    started = time.perf_counter()
    with runtime.gate.slot():
        answer = await _search(request, runtime)
    hits = answer.queries[0]
    if isinstance(hits, Problem):
        raise hits
    rest = {
        "model": answer.model,
        "took_ms": _milliseconds_since(started),
        "query": answer.query,
    }
    return _reply("results", _results(hits), rest)


@router.post(
    "/search/batch",
    summary="Find the nearest pictures to each of many",
    response_model=BatchReply,
    response_model_exclude_unset=True,
    openapi_extra=body(BATCH_BODY),
)
async def batch(request: Request, runtime: ReadyRuntime) -> Response:
    """One entry an image, in order: its results, or what is wrong with it."""
    started = time.perf_counter()
    with runtime.gate.slot():
        answer = await _batch(request, runtime)
        queries = await runtime.gate.blocking(lambda: _array(map(_entry, answer.queries)))
    rest = {"model": answer.model, "took_ms": _milliseconds_since(started)}
    return _reply("queries", queries, rest)


async def _search(request: Request, runtime: Runtime) -> Answer:
    searcher, model = runtime.searcher, runtime.model.id
    if forms.media_type(request) == "application/json":
        wanted = await forms.search_json(request, model)
        with runtime.latency.measured():
            return await searcher.by_id(wanted.id, wanted)
    async with forms.form(request, max_files=1) as fields:
        file, options = forms.search_form(fields, model)
        with runtime.latency.measured():
            return await searcher.by_pictures([file.file], options)


async def _batch(request: Request, runtime: Runtime) -> Answer:
    async with forms.form(request, runtime.settings.max_images, "GPQ_MAX_IMAGES") as fields:
        files, options = forms.batch_form(fields, runtime.model.id)
        return await runtime.searcher.by_pictures([file.file for file in files], options)


def _reply(name: str, array: str, rest: dict[str, Any]) -> Response:
    """The first field is JSON already."""
    content = f'{{"{name}":{array},{_compact(rest)[1:]}'
    return Response(content.encode(), media_type="application/json")


def _entry(entry: list[Hit] | Problem) -> str:
    if isinstance(entry, Problem):
        error = {"code": entry.code, "detail": entry.detail, "status": entry.status}
        return _compact({"error": error})
    return f'{{"results":{_results(entry)}}}'


def _results(hits: list[Hit]) -> str:
    """JSON. Metadata are JSON as they are stored: they are not read only to be written again."""
    return _array(
        f'{{"id":{json.dumps(hit.id)},"score":{hit.score},"metadata":{hit.metadata or "null"}}}'
        for hit in hits
    )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _array(entries: Iterable[str]) -> str:
    return f"[{','.join(entries)}]"


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
