"""Checks the fields of searches for copies.

Every function may raise Problem 403 or 422, and InvalidFilter.
"""

from typing import Annotated

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import FormData, UploadFile

from service.access.keys import Caller
from service.copies.hashes import DEFAULT_DISTANCE, LARGEST_DISTANCE
from service.http.problems import Problem, outside
from service.http.requests.bodies import json_body
from service.http.requests.fields import MAX_JSON_BYTES, validate, without_empty
from service.http.requests.search_fields import MAX_RESULTS, ImageUrl
from service.http.requests.searches import image_of
from service.settings import ID_PATTERN

DEFAULT_COPIES = 100
Distance = Annotated[
    int,
    Field(
        ge=0,
        le=LARGEST_DISTANCE,
        description="most bits of 256 in which the hashes of copies differ",
    ),
]


class CopyFields(BaseModel):
    """Fields of a search for copies beside the image."""

    model_config = ConfigDict(extra="forbid")

    k: Annotated[int, Field(ge=1, le=MAX_RESULTS, description="most copies to return")] = (
        DEFAULT_COPIES
    )
    distance: Distance = DEFAULT_DISTANCE


class CopiesByIdBody(CopyFields):
    """JSON body of a search for the copies of a stored image."""

    id: Annotated[str, Field(pattern=f"^{ID_PATTERN}$", description="id of a stored image")]


class CopiesByUrlBody(CopyFields):
    """JSON body of a search for the copies of an image of another server."""

    image_url: Annotated[
        str, Field(description="address of an image on another server, if GPQ_FETCH allows it")
    ]


class DuplicatesBody(BaseModel):
    """JSON body of POST /jobs/duplicates."""

    model_config = ConfigDict(extra="forbid")

    distance: Distance = DEFAULT_DISTANCE


def copies_form(fields: FormData) -> tuple[UploadFile | ImageUrl, CopyFields]:
    """Returns the ``image`` or ``image_url`` of POST /search/copies and the options beside it."""
    fields = without_empty(fields)
    query = image_of(fields)
    images = ("image", "image_url")
    given = [name for name, _ in fields.multi_items() if name not in images]
    for name in sorted(set(given)):
        if given.count(name) > 1:
            raise Problem(422, "repeated-field", f"{name}: send at most one field of that name")
    rest = {name: value for name, value in fields.multi_items() if name not in images}
    return query, validate(CopyFields, rest)


async def copies_json(request: Request, caller: Caller) -> tuple[str | ImageUrl, CopyFields]:
    """Returns the id or the address of the JSON body of POST /search/copies, and the options.

    Raises Problem 403 if the id is beyond the prefix of the caller's key.
    """
    value = await json_body(request, MAX_JSON_BYTES)
    if isinstance(value, dict) and "image_url" in value:
        by_url = validate(CopiesByUrlBody, value)
        return ImageUrl(by_url.image_url), by_url
    body = validate(CopiesByIdBody, value)
    if not body.id.startswith(caller.prefix):
        raise outside(caller.prefix)
    return body.id, body


async def duplicates_json(request: Request) -> DuplicatesBody:
    """Returns the JSON body of POST /jobs/duplicates; without a body the defaults."""
    headers = request.headers
    if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
        return DuplicatesBody()
    return validate(DuplicatesBody, await json_body(request, MAX_JSON_BYTES))
