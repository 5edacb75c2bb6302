"""GET /images and what there is below /images/{id}: the stored pictures."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.engine import Row

from service.catalogue.images import Original
from service.catalogue.metadata import decode_metadata
from service.http import forms, ranges
from service.http.forms import Description
from service.http.routes import ReadyRuntime, body, light
from service.http.schemas import ImageReply, ListReply
from service.settings import DEFAULT_PAGE_IMAGES, MAX_PAGE_IMAGES, THUMBNAIL_PIXELS

router = APIRouter()

Id = Annotated[str, Path(description="id of a stored image", examples=["cat-1"])]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_IMAGES, description="images a page, at most")]
Cursor = Annotated[
    str, Query(pattern="^[0-9]{1,18}$", description="`next_cursor` of the page before")
]
PATCH_BODY = {
    "application/json": {
        "schema": Description.model_json_schema(),
        "example": {"metadata": {"shelf": 4}},
    }
}
PART = {"description": "The bytes of Range, where it is one range"}
# An upload is never run as a page of ours, whatever it holds.
HARMLESS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
}


def _picture(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string", "contentMediaType": media_type}
    content = {media_type: {"schema": schema, "example": f"(bytes of {media_type})"}}
    return {
        200: {"description": description, "content": content},
        304: {"description": "The picture of If-None-Match is still the one"},
    }


@router.get("/images", summary="List the stored pictures", response_model=ListReply)
@light
def page(
    runtime: ReadyRuntime, limit: Limit = DEFAULT_PAGE_IMAGES, cursor: Cursor = "0"
) -> dict[str, Any]:
    """In order of storing. A picture replaced meanwhile moves to the end; none is left out."""
    rows = runtime.catalogue.page(int(cursor), limit)
    more = len(rows) == limit
    return {
        "images": [_reply(row) for row in rows],
        "next_cursor": str(rows[-1].seq) if more else None,
    }


@router.get("/images/{id}", summary="What is kept of a picture", response_model=ImageReply)
@light
def get(id: Id, runtime: ReadyRuntime) -> dict[str, Any]:
    """Its size, bytes, metadata, when it was stored, and its place in the feed."""
    return _reply(runtime.catalogue.get(id))


@router.patch(
    "/images/{id}",
    summary="Change metadata",
    response_model=ImageReply,
    openapi_extra=body(PATCH_BODY),
)
async def patch(id: Id, request: Request, runtime: ReadyRuntime) -> dict[str, Any]:
    """The new metadata takes the place of the old; null clears it."""
    with runtime.gate.slot():
        metadata = await forms.description(request)
        return _reply(await runtime.gate.run(lambda: runtime.catalogue.describe(id, metadata)))


@router.delete("/images/{id}", summary="Take a picture out", status_code=204)
@light
def delete(id: Id, runtime: ReadyRuntime) -> None:
    """No later search finds it."""
    runtime.catalogue.delete(id)


@router.get(
    "/images/{id}/thumbnail",
    summary=f"A WebP of at most {THUMBNAIL_PIXELS} pixels a side",
    response_class=Response,
    responses=_picture("image/webp", "The picture, upright, in sRGB, over white"),
)
async def thumbnail(id: Id, request: Request, runtime: ReadyRuntime) -> Response:
    """404 where originals are not kept."""
    known = request.headers.get("if-none-match", "").removeprefix("W/").strip('"')
    with runtime.gate.slot():
        small = await runtime.gate.run(lambda: runtime.catalogue.thumbnail(id, known))
    return _send(small, request, known)


@router.get(
    "/images/{id}/content",
    summary="The picture as it was uploaded",
    response_class=Response,
    responses={**_picture("image/*", "The bytes, untouched"), 206: PART},
)
async def content(id: Id, request: Request, runtime: ReadyRuntime) -> Response:
    """404 where originals are not kept."""
    known = request.headers.get("if-none-match", "").removeprefix("W/").strip('"')
    with runtime.gate.slot():
        original = await runtime.gate.run(lambda: runtime.catalogue.content(id))
    return _send(original, request, known)


def _send(original: Original, request: Request, known: str) -> Response:
    etag, media_type = f'"{original.sha256}"', original.media_type
    headers = {**HARMLESS, "ETag": etag}
    if original.sha256 == known:
        return Response(status_code=304, headers=headers)
    content = original.content
    if isinstance(content, bytes):
        return Response(content, media_type=media_type, headers=headers)
    part = ranges.wanted(request.headers, etag, content.size)
    asked = part or range(content.size)
    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(len(asked))}
    if part:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{content.size}"
    sent = content.between(asked.start, asked.stop)
    return StreamingResponse(sent, 206 if part else 200, headers, media_type)


def _reply(row: Row[Any]) -> dict[str, Any]:
    return {**row._mapping, "metadata": decode_metadata(row.metadata)}
