"""POST /index: store pictures and make them searchable."""

from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Query, Request, Response

from service.http import forms
from service.http.routes import FILE, ReadyRuntime, body, form
from service.http.schemas import IndexReply
from service.problems import Problem
from service.runtime import Runtime
from service.settings import HEARTBEAT_GAP_SECONDS, WAIT_ALL_SECONDS

router = APIRouter()

# The empty examples keep the forms of /docs from sending the word "string".
BODY = form(
    {
        "images": ["(the file cat.jpg)", "(the file car.png)"],
        "ids": '["cat-1","car-1"]',
        "metadata": '[{"shelf":3},null]',
    },
    "images",
    images={
        "type": "array",
        "items": FILE,
        "description": "files: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF",
    },
    ids={
        "type": "string",
        "examples": [""],
        "description": "JSON array of an id or null for each image; without one it is the first "
        "32 hex digits of the SHA-256 of the bytes",
    },
    metadata={
        "type": "string",
        "examples": [""],
        "description": "JSON array of an object or null for each image; null clears, an absent "
        "field keeps what is there",
    },
    model={
        "type": "string",
        "examples": [""],
        "description": "id of the model expected; 409 for another one",
    },
)
WAIT = Query(
    description="`all`: reply when every live process finds the pictures; 202 where one has not "
    f"said so within {WAIT_ALL_SECONDS} s"
)


@router.post(
    "/index",
    summary="Store pictures",
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
) -> dict[str, Any]:
    """Store pictures; each succeeds or fails alone, and is searchable before the reply."""
    with runtime.gate.slot():
        items, newest = await _put(request, runtime)
    if wait == "all" and not await _applied_by_all(newest, runtime):
        response.status_code = 202
    failed = [item for item in items if item["status"] == "failed"]
    if len(failed) == len(items):
        first = failed[0]["error"]["detail"]
        raise Problem(422, "all-failed", f"no image could be stored; first: {first}", items=items)
    return {"errors": bool(failed), "items": items}


async def _put(request: Request, runtime: Runtime) -> tuple[list[dict[str, Any]], int]:
    async with forms.form(request, runtime.settings.max_images, "GPQ_MAX_IMAGES") as fields:
        return await runtime.gate.run(
            lambda: runtime.catalogue.put(forms.index_uploads(fields, runtime.model.id))
        )


async def _applied_by_all(seq: int, runtime: Runtime) -> bool:
    """Asked again and again: no thread is held while others are waited for."""
    with anyio.move_on_after(WAIT_ALL_SECONDS):
        while not await runtime.gate.run(lambda: runtime.feed.applied_by_all(seq)):
            await anyio.sleep(HEARTBEAT_GAP_SECONDS / 2)
        return True
    return False
