"""Checks the fields of searches.

Every function may raise Problem 409 or 422, and InvalidFilter.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from starlette.datastructures import FormData, UploadFile

from service.access.keys import Caller
from service.decoding.task import Region
from service.errors import InvalidFilter
from service.filters import grammar
from service.filters.selection import Selection
from service.filters.values import keys_of
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
from service.search.cursor import Cursor
from service.search.cursor import decode as decode_cursor
from service.search.examples import NEGATIVE_WEIGHT, Example
from service.search.groups import Grouping
from service.search.options import SearchOptions
from service.settings import ID_PATTERN

MAX_RESULTS = 1000  # largest k of a search
DEFAULT_RESULTS = 10
MAX_BATCH_RESULTS = 100_000  # queries of a batch times k
MOST_EXAMPLES = 16  # positive ones, and as many negative ones
WHOLE = Region(0, 0, 1, 1)
LEAST_SIDE, ROUNDING = 0.001, 1e-6  # of a region, in fractions
MAX_CURSOR = 48 * 2**10  # characters
MAX_PAGED_FILTER = 16 * 2**10  # characters of a filter, which its cursors contain
MAX_FILTER_TEXT = 8 * 2**10  # characters of a filter in a URL
MAX_GROUP, MAX_GROUPED = 100, 10_000  # hits of one group, and of all groups
MOST_FACETS = 8
MAX_SEARCH_FIELDS = 20  # text fields of a form, with facets, but without examples


class RegionBody(BaseModel):
    """A region: a part of an upright image, in fractions of its width and height."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"x": 0, "y": 0, "width": 1, "height": 1}},
    )

    x: Annotated[float, Field(ge=0, lt=1, description="left edge")]
    y: Annotated[float, Field(ge=0, lt=1, description="upper edge")]
    width: Annotated[float, Field(gt=0, le=1, description="of the region")]
    height: Annotated[float, Field(gt=0, le=1, description="of the region")]

    @model_validator(mode="after")
    def _inside(self) -> "RegionBody":
        if self.x + self.width > 1 + ROUNDING or self.y + self.height > 1 + ROUNDING:
            raise ValueError(
                "the region leaves the image: x + width and y + height must be at most 1"
            )
        if min(self.width, self.height) < LEAST_SIDE:
            raise ValueError(f"width and height are at least {LEAST_SIDE}")
        return self


REGION_SCHEMA = {
    **RegionBody.model_json_schema(),
    "description": "part of the query to search for, in fractions of its upright width and height; "
    "in a form, JSON text",
}


class SearchFields(BaseModel):
    """Fields of a search beside the image."""

    model_config = ConfigDict(extra="forbid")

    k: Annotated[int, Field(ge=1, le=MAX_RESULTS, description="most results to return")] = (
        DEFAULT_RESULTS
    )
    min_score: Annotated[
        float, Field(ge=-1, le=1, allow_inf_nan=False, description="lowest score of a result")
    ] = -1.0
    exclude_same: Annotated[
        bool, Field(description="leave out stored images with the query's bytes, itself included")
    ] = False
    model: Annotated[
        str, Field(description="id of the expected model; 409 if another is active")
    ] = ""

    filter: Annotated[
        dict[str, Any] | None,
        Field(
            description="chooses the images to search by their metadata, for example "
            '`{"brand": "acme", "price": {"lt": 20}}`; in a form, JSON text',
            examples=[{}],
        ),
    ] = None

    region: Annotated[RegionBody | None, WithJsonSchema(REGION_SCHEMA)] = None
    pages: Annotated[
        bool,
        Field(description="whether the reply has `next_cursor`, to go on, and `total`"),
    ] = False

    group_by: Annotated[
        str,
        Field(
            description="a field of the metadata: `results` has the best image of each value, with "
            "the value in `group`, and `k` counts groups"
        ),
    ] = ""
    group_size: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_GROUP,
            description="most images of a group; those after the first are in `others`",
        ),
    ] = 1
    facets: Annotated[
        list[str],
        Field(
            max_length=MOST_FACETS,
            description="fields of the metadata whose values are counted over the images of the "
            "filter; in a form, repeat the field",
        ),
    ] = []
    explain: Annotated[
        bool,
        Field(
            description="whether the reply says which of the model's classes the query resembles, "
            "and what each score owes to them"
        ),
    ] = False

    def options(self, caller: Caller) -> SearchOptions:
        """Raises Problem 422, InvalidFilter."""
        selection = _selection(self.filter, caller)
        if self.pages and selection.filter and len(selection.filter.text) > MAX_PAGED_FILTER:
            limit = f"with pages it has at most {MAX_PAGED_FILTER:,} characters of JSON"
            raise InvalidFilter(f"filter: {limit}; shorten it, or search without pages")
        region = None if self.region is None else Region(**self.region.model_dump())
        region = None if region == WHOLE else region
        return SearchOptions(
            k=self.k,
            min_score=self.min_score,
            exclude_same=self.exclude_same,
            selection=selection,
            pages=self.pages,
            region=region,
            grouping=self._grouping(),
            facets=tuple(dict.fromkeys(grammar.field_name(name, "facets") for name in self.facets)),
            explain=self.explain,
        )

    def _grouping(self) -> Grouping | None:
        if not self.group_by:
            if self.group_size > 1:
                raise Problem(422, "invalid-field", "group_size: name a field with group_by")
            return None
        if self.pages:
            raise Problem(422, "invalid-field", "group_by: groups have no pages; ask for more")
        if self.k * self.group_size > MAX_GROUPED:
            sizes = f"{self.k} groups × {self.group_size} images"
            raise Problem(
                422, "too-many-results", f"group_size: {sizes}; at most {MAX_GROUPED} in all"
            )
        name = grammar.field_name(self.group_by, "group_by")
        return Grouping(keys_of(name, "group_by"), self.group_size)


class ExampleBody(BaseModel):
    """A stored image as an example."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=f"^{ID_PATTERN}$", description="id of a stored image")]
    weight: Annotated[
        float, Field(ge=0.01, le=100, allow_inf_nan=False, description="how much it counts")
    ] = 1.0


class SearchByExamplesBody(SearchFields):
    """JSON body of a search by several stored images."""

    positive: Annotated[
        list[ExampleBody],
        Field(min_length=1, max_length=MOST_EXAMPLES, description="what hits are like"),
    ]
    negative: Annotated[
        list[ExampleBody],
        Field(max_length=MOST_EXAMPLES, description="what hits are not like"),
    ] = []


class SearchByCursorBody(BaseModel):
    """JSON body of a search that goes on."""

    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[
        str,
        Field(max_length=MAX_CURSOR, description="`next_cursor` of the page before; only with `k`"),
    ]
    k: Annotated[
        int | None,
        Field(ge=1, le=MAX_RESULTS, description="most results to return; as before if left out"),
    ] = None


@dataclass(frozen=True)
class ImageUrl:
    """The address of an image to search for."""

    url: str


class SearchByUrlBody(SearchFields):
    """JSON body of a search by an image of another server."""

    image_url: Annotated[
        str, Field(description="address of an image on another server, if GPQ_FETCH allows it")
    ]


class SearchByIdBody(SearchFields):
    """JSON body of a search by a stored image."""

    id: Annotated[str, Field(pattern=f"^{ID_PATTERN}$", description="id of a stored image")]


def selection_of_text(filter: str, caller: Caller) -> Selection:
    """Returns the images of a filter, given as JSON text or "" for all, that a caller may see.

    Raises Problem 422, InvalidFilter.
    """
    return _selection(parse_json(filter, "filter") if filter else None, caller)


def search_form(
    fields: FormData, active_model: str, caller: Caller
) -> tuple[UploadFile | ImageUrl | list[Example], SearchOptions]:
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
) -> tuple[str | ImageUrl | Cursor | list[Example], SearchOptions]:
    """Returns the id, the address, the cursor or the examples, and the options, of the JSON body
    of POST /search.

    Raises Problem 403 if the id is beyond the prefix of the caller's key, InvalidCursor.
    """
    value = await json_body(request, MAX_JSON_BYTES)
    if isinstance(value, dict) and "cursor" in value:
        wanted = validate(SearchByCursorBody, value)
        cursor = decode_cursor(wanted.cursor, cursor_key)
        selection = _selection(cursor.filter, caller)
        return cursor, SearchOptions(
            wanted.k or cursor.k, cursor.min_score, False, selection, pages=True
        )
    if isinstance(value, dict) and value.keys() & {"positive", "negative"}:
        several = validate(SearchByExamplesBody, value)
        require_model(several.model, active_model)
        examples = [Example(each.id, each.weight) for each in several.positive]
        examples += [Example(e.id, -NEGATIVE_WEIGHT * e.weight) for e in several.negative]
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


def _examples(fields: FormData, caller: Caller) -> list[Example]:
    """Returns the examples of a form: each part is a file or the id of a stored image."""
    examples = []
    for name, weight in (("positive", 1.0), ("negative", -NEGATIVE_WEIGHT)):
        parts = fields.getlist(name)
        least = 1 if name == "positive" else 0
        if not least <= len(parts) <= MOST_EXAMPLES:
            detail = f"{name}: send {least} to {MOST_EXAMPLES} parts, files or ids of stored images"
            raise Problem(422, "invalid-field", detail)
        for part in parts:
            if isinstance(part, str) and not re.fullmatch(ID_PATTERN, part):
                raise Problem(422, "invalid-id", f"{name}: {part[:MAX_ECHOED_ID]!r} is not an id")
            examples.append(Example(part if isinstance(part, str) else part.file, weight))
    return _checked(examples, caller)


def _checked(examples: list[Example], caller: Caller) -> list[Example]:
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


def _selection(value: Any, caller: Caller) -> Selection:
    chosen = None if value in (None, {}) else grammar.parse(value)
    return Selection(chosen, caller.prefix)
