"""POST /search and /search/batch: find the images nearest to an upload or to a stored image."""

import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

from gpq.errors import ImageError
from service.errors import FetchFailed, FetchRefused, ServiceError
from service.http.dependencies import ReadyRuntime
from service.http.openapi import FILE, body, form
from service.http.problems import problem_of
from service.http.replies.images import BatchReply, ItemError, SearchReply
from service.http.requests import searches
from service.http.requests.bodies import form as read_form
from service.http.requests.bodies import media_type
from service.http.requests.disconnect import wanted
from service.http.requests.search_fields import (
    MAX_BATCH_RESULTS,
    MAX_SEARCH_FIELDS,
    MOST_EXAMPLES,
    ExampleBody,
    GivenExample,
    ImageUrl,
    SearchByCursorBody,
    SearchByIdBody,
    SearchByUrlBody,
    SearchFields,
)
from service.http.security import caller_of
from service.runtime import Runtime
from service.search.answers import SearchAnswer
from service.search.cursor import Cursor
from service.search.examples import Example
from service.search.hit import Hit
from service.search.options import SearchOptions

Entry = list[Hit] | ImageError | FetchRefused | FetchFailed
router = APIRouter()
SHORT_HITS, SHORT_CHARACTERS = 100, 65_536  # of the metadata of all hits

OPTIONS = SearchFields.model_json_schema()["properties"]
NOT_OF_A_BATCH = ("pages", "group_by", "group_size", "facets", "explain")
EXAMPLES = {
    name: {
        "type": "array",
        "items": FILE,
        "default": [],  # or forms made from this send a text
        "description": f"in place of `image`: what hits are {like}, each a file, the id of a "
        "stored image, or an address if GPQ_FETCH allows it",
    }
    for name, like in (("positive", "like"), ("negative", "not like"))
}
IMAGE_URL = SearchByUrlBody.model_json_schema()["properties"]["image_url"]
JSON_SCHEMA = {
    "type": "object",
    "properties": {
        **SearchByIdBody.model_json_schema()["properties"],
        "image_url": IMAGE_URL,
        "cursor": SearchByCursorBody.model_json_schema()["properties"]["cursor"],
        **{name: {"type": "array", "items": ExampleBody.model_json_schema()} for name in EXAMPLES},
    },
    "description": "with `id` or `image_url`, with `positive` and `negative` examples, or with "
    "`cursor` and at most `k` beside it",
}
SEARCH_BODY = {
    **form(
        {"image": "(the file query.jpg)", "k": 5},
        None,
        image=FILE,
        image_url={**IMAGE_URL, "examples": [""]},
        **EXAMPLES,
        **OPTIONS,
    ),
    "application/json": {
        "schema": JSON_SCHEMA,
        "example": {"id": "cat-1", "k": 5, "filter": {"shelf": {"lt": 5}}},
    },
}
BATCH_BODY = form(
    {"images": ["(the file one.jpg)", "(the file two.jpg)"], "k": 5},
    None,
    images={
        "type": "array",
        "items": FILE,
        "description": f"files; images × k is at most {MAX_BATCH_RESULTS}",
    },
    image_urls={
        "type": "string",
        "examples": [""],
        "description": "JSON array of addresses of further images, if GPQ_FETCH allows it",
    },
    **{name: schema for name, schema in OPTIONS.items() if name not in NOT_OF_A_BATCH},
)


@router.post(
    "/search",
    summary="Find the nearest images",
    response_model=SearchReply,
    openapi_extra=body(SEARCH_BODY),
)
async def search(request: Request, runtime: ReadyRuntime) -> Response:
    """Returns the k best images by the model's score, which is higher for nearer ones. Images of
    equal score come in order of storing."""
    started = time.perf_counter()
    admission = runtime.image_requests
    with admission.admit():
        answer = await _search(request, runtime)
        hits = answer.queries[0]
        if isinstance(hits, ImageError):
            raise hits
        if _is_short(hits, answer):
            return _answered(hits, answer, started, runtime)
        return await admission.on_thread(lambda: _answered(hits, answer, started, runtime))


@router.post(
    "/search/batch",
    summary="Find the nearest images to each of many",
    response_model=BatchReply,
    response_model_exclude_unset=True,
    openapi_extra=body(BATCH_BODY),
)
async def batch(request: Request, runtime: ReadyRuntime) -> Response:
    """Returns one entry for each image, in order: its results or its error."""
    started = time.perf_counter()
    admission = runtime.image_requests
    with admission.admit():
        model, entries = await _batch(request, runtime)
        queries = await admission.on_thread(lambda: _array(map(_entry, entries)))
    rest = {"model": model, "took_ms": _milliseconds_since(started)}
    return _reply("queries", queries, rest)


async def _search(request: Request, runtime: Runtime) -> SearchAnswer:
    model, caller = runtime.model.id, caller_of(request)
    if media_type(request) == "application/json":
        key = runtime.serving.cursor_key
        query, options = await searches.search_json(request, model, caller, key)
        async with wanted(request):
            return await _answer(query, options, runtime)
    most = 2 * MOST_EXAMPLES  # each a file, or a text field
    async with read_form(request, max_files=most, max_fields=MAX_SEARCH_FIELDS + most) as fields:
        upload, options = searches.search_form(fields, model, caller)
        async with wanted(request):
            return await _answer(upload, options, runtime)


async def _answer(
    query: UploadFile | ImageUrl | str | Cursor | list[GivenExample],
    options: SearchOptions,
    runtime: Runtime,
) -> SearchAnswer:
    searcher = runtime.serving.searcher
    if isinstance(query, list):
        async with _fetched(query, runtime) as examples:
            with runtime.latency.measured():
                return await searcher.by_examples(examples, options)
    if isinstance(query, ImageUrl):
        async with runtime.fetcher.file(query.url) as file:
            with runtime.latency.measured():
                return await searcher.by_uploads([file], options)
    with runtime.latency.measured():
        if isinstance(query, UploadFile):
            return await searcher.by_uploads([query.file], options)
        if isinstance(query, Cursor):
            return await searcher.by_cursor(query, options)
        return await searcher.by_id(query, options)


@asynccontextmanager
async def _fetched(given: list[GivenExample], runtime: Runtime) -> AsyncIterator[list[Example]]:
    """Opens the examples that are addresses. Raises FetchOff, FetchRefused, FetchFailed."""
    urls = [each.query.url for each in given if isinstance(each.query, ImageUrl)]
    async with runtime.fetcher.files(urls) as files:
        fetched = iter(files)
        examples = []
        for each in given:
            query = next(fetched) if isinstance(each.query, ImageUrl) else each.query
            if isinstance(query, ServiceError):
                raise query
            examples.append(Example(query, each.weight))
        yield examples


async def _batch(request: Request, runtime: Runtime) -> tuple[str, list[Entry]]:
    """Returns the id of the model, and the hits or the error of each image."""
    searcher, model = runtime.serving.searcher, runtime.model.id
    async with read_form(request, runtime.settings.max_images, "GPQ_MAX_IMAGES") as fields:
        files, urls, options = searches.batch_form(fields, model, caller_of(request))
        async with wanted(request), runtime.fetcher.files(urls) as fetched:
            queries = [*(file.file for file in files), *fetched]
            given = [each for each in queries if not isinstance(each, ServiceError)]
            answer = await searcher.by_uploads(given, options)
    found = iter(answer.queries)
    entries = [each if isinstance(each, ServiceError) else next(found) for each in queries]
    return answer.model, entries


def _answered(hits: list[Hit], answer: SearchAnswer, started: float, runtime: Runtime) -> Response:
    following, key = answer.next, runtime.serving.cursor_key
    rest = {
        "model": answer.model,
        "took_ms": _milliseconds_since(started),
        "query": answer.compared,
        "total": answer.total,
        "next_cursor": None if following is None else following.encode(key),
        "complete": answer.complete,
        "facets": _facets(answer),
        "explanation": answer.explanation and asdict(answer.explanation),
    }
    explained = answer.explanation is not None
    return _reply("results", _results(hits, explained=explained), rest)


def _is_short(hits: Sequence[Hit], answer: SearchAnswer) -> bool:
    """Whether writing the reply takes less time than handing it to a thread."""
    grouped = any(hit.group is not None for hit in hits[:1])
    if grouped or answer.facets is not None or len(hits) > SHORT_HITS:
        return False
    return sum(len(hit.metadata or "") for hit in hits) <= SHORT_CHARACTERS


# Search replies are written as text, because the stored metadata are JSON already: parsing them
# to write them again would take longer than the search. The schemas describe the same shape.


def _reply(name: str, array: str, rest: dict[str, Any]) -> Response:
    content = f'{{"{name}":{array},{_compact(rest)[1:]}'
    return Response(content.encode(), media_type="application/json")


def _entry(entry: Entry) -> str:
    if not isinstance(entry, list):
        problem = problem_of(entry)
        assert problem is not None  # each of these errors has a reply
        return _compact({"error": ItemError.of(problem).model_dump()})
    return f'{{"results":{_results(entry)}}}'


def _facets(answer: SearchAnswer) -> dict[str, Any] | None:
    if answer.facets is None:
        return None
    return {name: [asdict(each) for each in counts] for name, counts in answer.facets.items()}


def _results(hits: Iterable[Hit], *, explained: bool = False) -> str:
    return _array(_result(hit, explained) for hit in hits)


def _result(hit: Hit, explained: bool) -> str:
    more = ""
    if hit.group is not None:
        others = _results(hit.others, explained=explained)
        more = f',"group":{_compact(hit.group)},"others":{others}'
    if explained:
        more += f',"of_class":{_compact(hit.of_class)}'
    text = f'"id":{json.dumps(hit.id)},"score":{hit.score},"metadata":{hit.metadata or "null"}'
    return f"{{{text}{more}}}"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _array(entries: Iterable[str]) -> str:
    return f"[{','.join(entries)}]"


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
