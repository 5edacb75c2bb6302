"""Routes below /images: the stored images."""

import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import Headers

from service.catalogue.images import Catalogue, ImageFile
from service.database.records import StoredImage
from service.decoding.decoder import THUMBNAIL_PIXELS
from service.http.dependencies import DEFAULT_PAGE, Limit, ReadyRuntime, database_route
from service.http.openapi import body
from service.http.replies.images import ImageReply, ListReply, TaggedReply
from service.http.requests import images as requests
from service.http.requests import ranges
from service.http.requests.images import MetadataBody
from service.http.requests.search_fields import MAX_FILTER_TEXT
from service.http.requests.searches import selection_of_text
from service.http.security import caller_of

router = APIRouter()

Id = Annotated[str, Path(description="id of a stored image", examples=["cat-1"])]
Cursor = Annotated[
    str, Query(pattern="^[0-9]{1,18}$", description="`next_cursor` of the page before")
]
FilterText = Annotated[
    str,
    Query(
        max_length=MAX_FILTER_TEXT,
        description="JSON object that chooses images by their metadata, as in `POST /search`",
        examples=['{"shelf": {"lt": 5}}'],
    ),
]
PATCH_BODY = {
    "application/json": {
        "schema": MetadataBody.model_json_schema(),
        "example": {"metadata": {"shelf": 4}},
    }
}
ENTITY_TAG = re.compile(r'(?:W/)?"([^"]*)"')
PART = {"description": "The requested bytes, if Range names one range"}
# Browsers must never run an upload as a page of this service, whatever it holds.
HARMLESS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
}


def _image_replies(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string", "contentMediaType": media_type}
    content = {media_type: {"schema": schema, "example": f"(bytes of {media_type})"}}
    return {
        200: {"description": description, "content": content},
        304: {"description": "The image of If-None-Match is still the current one"},
    }


@router.get("/images", summary="List the stored images", response_model=ListReply)
@database_route
def page(
    request: Request,
    runtime: ReadyRuntime,
    limit: Limit = DEFAULT_PAGE,
    cursor: Cursor = "0",
    filter: FilterText = "",
) -> ListReply:
    """Lists images in order of storing. An image replaced meanwhile moves to the end; no image is
    left out. With a filter, a page may have fewer images than `limit` although others follow; the
    last one has no `next_cursor`."""
    selection = selection_of_text(filter, caller_of(request))
    found = runtime.serving.catalogue.page(int(cursor), limit, selection)
    return ListReply(
        images=[ImageReply.of(image) for image in found.images],
        next_cursor=None if found.next is None else str(found.next),
    )


@router.get("/images/{id}", summary="Describe an image", response_model=TaggedReply)
@database_route
def get(id: Id, runtime: ReadyRuntime) -> TaggedReply:
    """Returns size, bytes, metadata, time of storing, seq, and `tags`: the classes of the active
    model that the image resembles."""
    catalogue = runtime.serving.catalogue
    return _tagged(catalogue.get(id), catalogue)


@router.patch(
    "/images/{id}",
    summary="Replace metadata",
    response_model=TaggedReply,
    openapi_extra=body(PATCH_BODY),
)
async def patch(id: Id, request: Request, runtime: ReadyRuntime) -> TaggedReply:
    """Replaces the stored metadata; null clears it."""
    admission, catalogue = runtime.image_requests, runtime.serving.catalogue
    with admission.admit():
        metadata = await requests.metadata_json(request)
        return await admission.run(lambda: _tagged(catalogue.describe(id, metadata), catalogue))


@router.delete("/images/{id}", summary="Delete an image", status_code=204)
@database_route
def delete(id: Id, runtime: ReadyRuntime) -> None:
    """Deletes an image. No later search finds it."""
    runtime.serving.catalogue.delete(id)


@router.get(
    "/images/{id}/thumbnail",
    summary=f"Return a WebP of at most {THUMBNAIL_PIXELS} pixels a side",
    response_class=Response,
    responses=_image_replies("image/webp", "The image, upright, in sRGB, over white"),
)
async def thumbnail(id: Id, request: Request, runtime: ReadyRuntime) -> Response:
    """Returns a small version of the image; 404 if originals are not kept."""
    admission, catalogue = runtime.image_requests, runtime.serving.catalogue
    with admission.admit():
        small = await admission.run(lambda: catalogue.thumbnail(id, _known(request.headers)))
    return _send(small, request)


@router.get(
    "/images/{id}/content",
    summary="Return the original",
    response_class=Response,
    responses={**_image_replies("image/*", "The uploaded bytes, unchanged"), 206: PART},
)
async def content(id: Id, request: Request, runtime: ReadyRuntime) -> Response:
    """Returns the bytes as they were uploaded; 404 if originals are not kept."""
    admission, catalogue = runtime.image_requests, runtime.serving.catalogue
    with admission.admit():
        original = await admission.run(lambda: catalogue.content(id))
    return _send(original, request)


def _tagged(image: StoredImage, catalogue: Catalogue) -> TaggedReply:
    return TaggedReply.tagged(image, catalogue.tags(image))


def _known(headers: Headers) -> Callable[[str], bool]:
    """Returns whether If-None-Match has the sha256 that it is given (RFC 9110, 13.1.2)."""
    value = ", ".join(headers.getlist("if-none-match"))
    tags = frozenset(ENTITY_TAG.findall(value))
    return lambda sha256: value.strip() == "*" or sha256 in tags


def _send(file: ImageFile, request: Request) -> Response:
    etag, media_type = f'"{file.sha256}"', file.media_type
    headers = {**HARMLESS, "ETag": etag}
    if _known(request.headers)(file.sha256):
        return Response(status_code=304, headers=headers)
    content = file.content
    if isinstance(content, bytes):
        return Response(content, media_type=media_type, headers=headers)
    part = ranges.requested(request.headers, etag, content.size)
    sent = part or range(content.size)
    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(len(sent))}
    if part:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{content.size}"
    chunks = content.between(sent.start, sent.stop)
    return StreamingResponse(chunks, 206 if part else 200, headers, media_type)
