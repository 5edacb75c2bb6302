"""Checks the fields of searches.

Every function may raise Problem 409 or 422, and InvalidFilter.
"""

import re
from collections.abc import Collection
from typing import Any, BinaryIO

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from service.access.keys import Caller
from service.filters.selection import Selection
from service.http.problems import Problem, outside
from service.http.requests.bodies import json_body, parse_json
from service.http.requests.fields import (
    MAX_ECHOED_ID,
    MAX_JSON_BYTES,
    file_of,
    require_model,
    text_of,
    urls_of,
    validate,
    without_empty,
)
from service.http.requests.search_fields import (
    MAX_BATCH_RESULTS,
    MOST_EXAMPLES,
    GivenExample,
    ImageUrl,
    SearchByCursorBody,
    SearchByExamplesBody,
    SearchByIdBody,
    SearchByUrlBody,
    SearchFields,
    selection_of,
)
from service.search.cursor import Cursor
from service.search.cursor import decode as decode_cursor
from service.search.examples import NEGATIVE_WEIGHT
from service.search.options import SearchOptions
from service.settings import ID_PATTERN

ADDRESSES = ("http://", "https://")  # no id begins so


def selection_of_text(filter: str, caller: Caller) -> Selection:
    """Returns the images of a filter, given as JSON text or "" for all, that a caller may see.

    Raises Problem 422, InvalidFilter.
    """
    return selection_of(parse_json(filter, "filter") if filter else None, caller)


def search_form(
    fields: FormData, active_model: str, caller: Caller
) -> tuple[UploadFile | ImageUrl | list[GivenExample], SearchOptions]:
    """Returns the ``image`` or ``image_url`` of POST /search, or its examples, and the options
    beside it.

    Raises Problem 403 if the id of an example is beyond the prefix of the caller's key.
    """
    fields = without_empty(fields)
    if "positive" in fields or "negative" in fields:
        options = _options(fields, ("positive", "negative"), active_model, caller)
        return _examples(fields, caller), _of_examples(options)
    query = image_of(fields)
    return query, _options(fields, ("image", "image_url"), active_model, caller)


def image_of(fields: FormData) -> UploadFile | ImageUrl:
    """Returns the ``image`` of a form, or its ``image_url``."""
    files, url = fields.getlist("image"), text_of(fields, "image_url")
    if len(files) + (url is not None) != 1:
        detail = "image: send exactly one file part of that name, or image_url"
        raise Problem(422, "missing-field", detail)
    return ImageUrl(url) if url is not None else file_of(files[0], "image")


def batch_form(
    fields: FormData, active_model: str, caller: Caller
) -> tuple[list[UploadFile], list[str], SearchOptions]:
    """Returns the ``images`` and ``image_urls`` of POST /search/batch and the options beside
    them."""
    files, urls = fields.getlist("images"), urls_of(fields)
    if not files and not urls:
        raise Problem(422, "missing-field", "images: send at least one file part of that name")
    options = _options(fields, ("images", "image_urls"), active_model, caller)
    alone = {
        "pages": options.pages,
        "group_by": options.grouping,
        "facets": options.facets,
        "explain": options.explain,
    }
    for name in [name for name, wanted in alone.items() if wanted]:
        raise Problem(422, "invalid-field", f"{name}: search for one image at a time")
    count = len(files) + len(urls)
    if count * options.k > MAX_BATCH_RESULTS:
        raise Problem(
            422,
            "too-many-results",
            f"k: {count} images × {options.k} results; at most {MAX_BATCH_RESULTS} in all",
        )
    return [file_of(file, "images") for file in files], urls, options


async def search_json(
    request: Request, active_model: str, caller: Caller, cursor_key: bytes
) -> tuple[str | ImageUrl | Cursor | list[GivenExample], SearchOptions]:
    """Returns the id, the address, the cursor or the examples, and the options, of the JSON body
    of POST /search.

    Raises Problem 403 if the id is beyond the prefix of the caller's key, InvalidCursor.
    """
    value = await json_body(request, MAX_JSON_BYTES)
    if isinstance(value, dict) and "cursor" in value:
        wanted = validate(SearchByCursorBody, value)
        cursor = decode_cursor(wanted.cursor, cursor_key)
        selection = selection_of(cursor.filter, caller)
        return cursor, SearchOptions(
            wanted.k or cursor.k, cursor.min_score, False, selection, pages=True
        )
    if isinstance(value, dict) and value.keys() & {"positive", "negative"}:
        several = validate(SearchByExamplesBody, value)
        require_model(several.model, active_model)
        examples = [each.given(1) for each in several.positive]
        examples += [each.given(-NEGATIVE_WEIGHT) for each in several.negative]
        return _checked(examples, caller), _of_examples(several.options(caller))
    if isinstance(value, dict) and "image_url" in value:
        by_url = validate(SearchByUrlBody, value)
        require_model(by_url.model, active_model)
        return ImageUrl(by_url.image_url), by_url.options(caller)
    body = validate(SearchByIdBody, value)
    require_model(body.model, active_model)
    if not body.id.startswith(caller.prefix):
        raise outside(caller.prefix)
    return body.id, body.options(caller)


def _examples(fields: FormData, caller: Caller) -> list[GivenExample]:
    """Returns the examples of a form: each part is a file, the id of a stored image, or an
    address."""
    examples = []
    for name, weight in (("positive", 1.0), ("negative", -NEGATIVE_WEIGHT)):
        parts = fields.getlist(name)
        least = 1 if name == "positive" else 0
        if not least <= len(parts) <= MOST_EXAMPLES:
            detail = f"{name}: send {least} to {MOST_EXAMPLES} parts, files, ids or addresses"
            raise Problem(422, "invalid-field", detail)
        examples += [GivenExample(_example(part, name), weight) for part in parts]
    return _checked(examples, caller)


def _example(part: UploadFile | str, name: str) -> BinaryIO | str | ImageUrl:
    if not isinstance(part, str):
        return part.file
    if part.lower().startswith(ADDRESSES):
        return ImageUrl(part)
    if not re.fullmatch(ID_PATTERN, part):
        detail = f"{name}: {part[:MAX_ECHOED_ID]!r} is neither an id nor an address"
        raise Problem(422, "invalid-id", detail)
    return part


def _checked(examples: list[GivenExample], caller: Caller) -> list[GivenExample]:
    """Raises Problem 403 if an id is beyond the prefix of the caller's key."""
    for example in examples:
        if isinstance(example.query, str) and not example.query.startswith(caller.prefix):
            raise outside(caller.prefix)
    return examples


def _of_examples(options: SearchOptions) -> SearchOptions:
    for name, wanted in (("region", options.region), ("explain", options.explain)):
        if wanted:
            raise Problem(422, "invalid-field", f"{name}: search for one image at a time")
    return options


def _options(
    fields: FormData, images: Collection[str], active_model: str, caller: Caller
) -> SearchOptions:
    given = [name for name, _ in fields.multi_items() if name not in images]
    for name in sorted(set(given)):
        if given.count(name) > 1 and name != "facets":
            raise Problem(422, "repeated-field", f"{name}: send at most one field of that name")
    sent = without_empty(fields).multi_items()
    rest: dict[str, Any] = {name: value for name, value in sent if name not in images}
    if "facets" in rest:
        rest["facets"] = [value for name, value in sent if name == "facets"]
    for name in ("filter", "region"):
        if isinstance(text := rest.get(name), str):
            if len(text) > MAX_JSON_BYTES:
                detail = f"{name}: {len(text)} characters; at most {MAX_JSON_BYTES}"
                raise Problem(422, "field-too-large", detail)
            rest[name] = parse_json(text, name)
    search = validate(SearchFields, rest)
    require_model(search.model, active_model)
    return search.options(caller)
