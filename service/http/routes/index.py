"""POST /index: stores images and makes them searchable."""

from typing import Annotated, Literal

import anyio
from fastapi import APIRouter, Query, Request, Response

from service.catalogue.ingest import Duplicates, PutResult
from service.copies.hashes import DEFAULT_DISTANCE, LARGEST_DISTANCE
from service.errors import CopiesOff
from service.http.dependencies import ReadyRuntime
from service.http.openapi import FILE, body, form
from service.http.problems import Problem
from service.http.replies.images import IndexItem, IndexReply
from service.http.requests import images as requests
from service.http.requests.bodies import form as read_form
from service.http.requests.disconnect import wanted
from service.http.security import caller_of
from service.index.heartbeat import HEARTBEAT_GAP_SECONDS
from service.runtime import Runtime

WAIT_ALL_SECONDS = 10  # how long wait=all waits before it replies 202
router = APIRouter()

# The empty examples keep the forms of /docs from sending the word "string".
BODY = form(
    {
        "images": ["(the file cat.jpg)", "(the file car.png)"],
        "ids": '["cat-1","car-1"]',
        "metadata": '[{"shelf":3},null]',
    },
    None,
    images={
        "type": "array",
        "items": FILE,
        "description": "files: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF; HEIC if installed",
    },
    image_urls={
        "type": "string",
        "examples": [""],
        "description": "JSON array of addresses of further images, if GPQ_FETCH allows it",
    },
    ids={
        "type": "string",
        "examples": [""],
        "description": "JSON array of an id or null for each image; an image without an id gets "
        "the first 32 hex digits of the SHA-256 of its bytes",
    },
    metadata={
        "type": "string",
        "examples": [""],
        "description": "JSON array of an object or null for each image; null clears the metadata, "
        "an absent field keeps it",
    },
    model={
        "type": "string",
        "examples": [""],
        "description": "id of the expected model; 409 if another is active",
    },
)
WAIT = Query(
    description="`all`: reply when searches in every live process find the images; 202 if one has "
    f"not reported it within {WAIT_ALL_SECONDS} s"
)

DUPLICATES = Query(
    description="`report`: the reply says which stored images each image is a copy of; `skip`: "
    "copies are not stored"
)
DISTANCE = Query(
    ge=0,
    le=LARGEST_DISTANCE,
    description="with `duplicates`: most bits of 256 in which the hashes of copies differ",
)


@router.post(
    "/index",
    summary="Store images",
    response_model=IndexReply,
    response_model_exclude_unset=True,
    responses={202: {"model": IndexReply, "description": "Stored; not found everywhere yet"}},
    openapi_extra=body(BODY),
)
async def index(
    request: Request,
    response: Response,
    runtime: ReadyRuntime,
    wait: Annotated[Literal["all"] | None, WAIT] = None,
    duplicates: Annotated[Literal["report", "skip"] | None, DUPLICATES] = None,
    distance: Annotated[int, DISTANCE] = DEFAULT_DISTANCE,
) -> IndexReply:
    """Stores images. Each succeeds or fails alone, and is searchable before the reply is sent."""
    sought = None
    if duplicates is not None:
        sought = Duplicates(duplicates == "skip", distance, caller_of(request).prefix)
        if runtime.serving.copy_search is None:
            raise CopiesOff
    with runtime.image_requests.admit():
        results, newest = await _put(request, runtime, sought)
    stored = [each for each in results if each.status not in ("failed", "skipped")]
    request.state.about = {"ids": [result.id for result in stored]}
    if wait == "all" and not await _applied_by_all(newest, runtime):
        response.status_code = 202
    items = [IndexItem.of(result) for result in results]
    failed = [item.error for item in items if item.error]
    if len(failed) == len(items):
        raise Problem(
            422,
            "all-failed",
            f"no image could be stored; the first error: {failed[0].detail}",
            items=[item.model_dump(exclude_unset=True) for item in items],
        )
    return IndexReply(errors=bool(failed), items=items)


async def _put(
    request: Request, runtime: Runtime, duplicates: Duplicates | None
) -> tuple[list[PutResult], int]:
    writer, model, caller = runtime.serving.writer, runtime.model.id, caller_of(request)
    most, admission = runtime.settings.max_images, runtime.image_requests
    async with read_form(request, most, "GPQ_MAX_IMAGES") as fields, wanted(request):
        asked = await admission.run(lambda: requests.index_form(fields, model, caller))
        async with runtime.fetcher.files(asked.urls) as fetched:
            return await admission.run(lambda: writer.put(asked.uploads(fetched), duplicates))


async def _applied_by_all(seq: int, runtime: Runtime) -> bool:
    """Polls, so that no thread is held while other processes catch up."""
    replicas = runtime.store.replicas
    with anyio.move_on_after(WAIT_ALL_SECONDS):
        while not await runtime.image_requests.run(lambda: replicas.have_applied(seq)):
            await anyio.sleep(HEARTBEAT_GAP_SECONDS / 2)
        return True
    return False
