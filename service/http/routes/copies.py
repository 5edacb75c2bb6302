"""POST /search/copies, and the groups of copies of the whole catalogue."""

import time
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import UploadFile

from service.copies.copies import CopyAnswer
from service.copies.search import CopySearch, is_plain
from service.database.records import CopyHash, StoredImage
from service.errors import CopiesOff
from service.http.dependencies import ReadyRuntime, database_route
from service.http.openapi import FILE, body, form
from service.http.replies.administration import JobReply
from service.http.replies.copies import CopiesReply, DuplicatesReply, FoundCopy, GroupReply
from service.http.requests import copies as requests
from service.http.requests.bodies import form as read_form
from service.http.requests.bodies import media_type
from service.http.requests.copies import CopiesByIdBody, CopiesByUrlBody, CopyFields, DuplicatesBody
from service.http.requests.disconnect import wanted
from service.http.requests.search_fields import ImageUrl
from service.http.routes.jobs import ACCEPTED, ask
from service.http.security import caller_of
from service.runtime import Runtime

MOST_GROUPS = 100  # on a page
Found = tuple[CopyAnswer, CopyHash]
router = APIRouter()
jobs = APIRouter()

OPTIONS = CopyFields.model_json_schema()["properties"]
IMAGE_URL = CopiesByUrlBody.model_json_schema()["properties"]["image_url"]
BY_ID = CopiesByIdBody.model_json_schema()["properties"]
COPIES_BODY = {
    **form(
        {"image": "(the file query.jpg)"},
        None,
        image=FILE,
        image_url={**IMAGE_URL, "examples": [""]},
        **OPTIONS,
    ),
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {**BY_ID, "image_url": IMAGE_URL},
            "description": "with `id` or `image_url`",
        },
        "example": {"id": "cat-1"},
    },
}
DUPLICATES_BODY = {
    "application/json": {
        "schema": DuplicatesBody.model_json_schema(),
        "example": {"distance": 31},
    }
}
Limit = Annotated[int, Query(ge=1, le=MOST_GROUPS, description="most groups on the page")]
Cursor = Annotated[
    str, Query(pattern="^[0-9]{1,18}$", description="`next_cursor` of the page before")
]


@router.post(
    "/search/copies",
    summary="Find the copies of an image",
    response_model=CopiesReply,
    openapi_extra=body(COPIES_BODY),
)
async def search(request: Request, runtime: ReadyRuntime) -> CopiesReply:
    """Returns stored images that are copies of an upload, or of a stored image: scaled, compressed
    again, made brighter or darker, mirrored, or turned by quarters."""
    started = time.perf_counter()
    searcher, caller = _searcher(runtime), caller_of(request)
    admission = runtime.image_requests

    def visible(image: StoredImage) -> bool:
        return image.id.startswith(caller.prefix)

    async def find(query: UploadFile | ImageUrl | str, options: CopyFields) -> Found:
        if isinstance(query, ImageUrl):
            async with runtime.fetcher.file(query.url) as file:
                return await of_upload(file, options)
        if isinstance(query, UploadFile):
            return await of_upload(query.file, options)
        return await admission.run(
            lambda: searcher.of_image(query, options.distance, options.k, visible)
        )

    async def of_upload(file: BinaryIO, options: CopyFields) -> Found:
        return await admission.run(
            lambda: searcher.of_upload(file, options.distance, options.k, visible)
        )

    with admission.admit():
        if media_type(request) == "application/json":
            asked = await requests.copies_json(request, caller)
            async with wanted(request):
                answer, hash = await find(*asked)
        else:
            async with read_form(request, max_files=1) as fields, wanted(request):
                answer, hash = await find(*requests.copies_form(fields))
    return CopiesReply(
        copies=[FoundCopy.found(copy) for copy in answer.copies],
        complete=answer.complete,
        quality=max(0, hash.quality),
        plain=is_plain(hash),
        took_ms=round((time.perf_counter() - started) * 1000, 2),
    )


@router.get("/duplicates", summary="List groups of copies", response_model=DuplicatesReply)
@database_route
def page(
    request: Request, runtime: ReadyRuntime, limit: Limit = 20, cursor: Cursor = "0"
) -> DuplicatesReply:
    """Lists the groups that the last job of `POST /jobs/duplicates` found, without images that were
    deleted or replaced since. `job` is null if no job has ended."""
    prefix = caller_of(request).prefix
    job, groups = runtime.store.copies.groups(int(cursor), limit, prefix)
    return DuplicatesReply(
        groups=[GroupReply.of(group) for group in groups],
        job=job,
        next_cursor=str(groups[-1].first) if len(groups) == limit else None,
    )


@jobs.post(
    "/jobs/duplicates",
    summary="Find all copies",
    openapi_extra={"requestBody": {"content": DUPLICATES_BODY}},
    **ACCEPTED,
)
async def ask_duplicates(request: Request, response: Response, runtime: ReadyRuntime) -> JobReply:
    """Compares all stored images, in the background; `GET /duplicates` lists what it found."""
    _searcher(runtime)
    with runtime.image_requests.admit():
        distance = (await requests.duplicates_json(request)).distance
        return await runtime.image_requests.run(
            lambda: ask("duplicates", str(distance), response, runtime)
        )


def _searcher(runtime: Runtime) -> CopySearch:
    """Raises CopiesOff, Unavailable."""
    if runtime.serving.copy_search is None:
        raise CopiesOff
    return runtime.serving.copy_search
