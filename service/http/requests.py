"""Checks the fields of requests.

Every function may raise Problem 409 or 422, InvalidMetadata or MetadataTooLarge, and those that
read a JSON body what ``bodies.json_body`` raises.
"""

import re
from collections.abc import Collection
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from starlette.datastructures import FormData, UploadFile

from service.access.keys import Caller
from service.catalogue import filters
from service.catalogue.cursor import Cursor
from service.catalogue.cursor import decode as decode_cursor
from service.catalogue.examples import NEGATIVE_WEIGHT, Example
from service.catalogue.ingest import Upload
from service.catalogue.metadata import MAX_METADATA_BYTES, encode_metadata
from service.catalogue.searcher import SearchOptions
from service.catalogue.selection import Selection
from service.database.records import KEEP, Scope
from service.decoding.task import Region
from service.errors import InvalidFilter
from service.http.bodies import json_body, parse_json
from service.http.problems import Problem, outside
from service.settings import ID_PATTERN

MAX_RESULTS = 1000  # largest k of a search
DEFAULT_RESULTS = 10
MAX_BATCH_RESULTS = 100_000  # queries of a batch times k
MAX_ECHOED_ID = 200  # characters of an invalid id that the error echoes
MAX_ECHOED_NAME = 255  # characters of a file's name that the reply echoes
MAX_JSON_BYTES = 64 * 2**10  # the JSON body of a search
MAX_METADATA_JSON_BYTES = 8 * MAX_METADATA_BYTES  # JSON with \u escapes and spaces is longer
MOST_EXAMPLES = 16  # positive ones, and as many negative ones
WHOLE = Region(0, 0, 1, 1)
LEAST_SIDE, ROUNDING = 0.001, 1e-6  # of a region, in fractions
MAX_CURSOR = 32 * 2**10  # characters
MAX_PAGED_FILTER = 16 * 2**10  # characters of a filter, which its cursors contain
MAX_FILTER_TEXT = 8 * 2**10  # characters of a filter in a URL
MAX_PATH = 4096  # characters of the source of an import

Arguments = TypeVar("Arguments", bound=BaseModel)


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

    def options(self, caller: Caller) -> SearchOptions:
        """Raises InvalidFilter."""
        selection = _selection(self.filter, caller)
        if self.pages and selection.filter and len(selection.filter.text) > MAX_PAGED_FILTER:
            limit = f"with pages it has at most {MAX_PAGED_FILTER:,} characters of JSON"
            raise InvalidFilter(f"filter: {limit}; shorten it, or search without pages")
        region = None if self.region is None else Region(**self.region.model_dump())
        region = None if region == WHOLE else region
        return SearchOptions(
            self.k, self.min_score, self.exclude_same, selection, self.pages, region
        )


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


class SearchByIdBody(SearchFields):
    """JSON body of a search by a stored image."""

    id: Annotated[str, Field(pattern=f"^{ID_PATTERN}$", description="id of a stored image")]


class MetadataBody(BaseModel):
    """JSON body that replaces metadata."""

    model_config = ConfigDict(extra="forbid")

    metadata: Annotated[
        dict[str, Any] | None,
        Field(
            description="replaces the stored metadata; null clears it; at most "
            f"{MAX_METADATA_BYTES} bytes"
        ),
    ]


class KeyBody(BaseModel):
    """JSON body of POST /keys."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str,
        Field(
            min_length=1, max_length=64, description="what the key is for; the audit log shows it"
        ),
    ]
    scopes: Annotated[
        list[Scope],
        Field(
            min_length=1,
            description="`search`: search and read images; `index`: store, change, delete and read "
            "images; `admin`: everything, also models, jobs and keys",
        ),
    ]
    prefix: Annotated[
        str,
        Field(max_length=128, description="what ids must begin with; not with `admin`"),
    ] = ""
    expires: Annotated[
        AwareDatetime | None, Field(description="when the key becomes invalid, ISO 8601")
    ] = None


class ImportBody(BaseModel):
    """JSON body of an import."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_PATH,
            description="a folder, .csv or .jsonl manifest, or .tar below GPQ_IMPORT_FOLDER",
        ),
    ]


def index_uploads(fields: FormData, active_model: str, caller: Caller) -> list[Upload]:
    """Returns the uploads of POST /index: its ``images``, ``ids``, ``metadata`` and ``model``.

    Raises Problem 403 if an id is beyond the prefix of the caller's key.
    """
    fields = _without_empty(fields)
    _require_known(fields, {"images", "ids", "metadata", "model"})
    files = fields.getlist("images")
    if not files:
        raise Problem(422, "missing-field", "images: send at least one file part of that name")
    ids = _array(fields, "ids", len(files))
    metadata = _array(fields, "metadata", len(files))
    if caller.prefix:
        _require_prefix(ids or [None] * len(files), caller)
    _require_model(_text(fields, "model"), active_model)
    return [
        Upload(
            file=_file(file, "images").file,
            name=_echoed_name(_file(file, "images").filename),
            id=None if ids is None else _id(ids[place], place),
            metadata=KEEP
            if metadata is None
            else encode_metadata(metadata[place], f"metadata[{place}]"),
        )
        for place, file in enumerate(files)
    ]


def selection_of_text(filter: str, caller: Caller) -> Selection:
    """Returns the images of a filter, given as JSON text or "" for all, that a caller may see.

    Raises Problem 422, InvalidFilter.
    """
    return _selection(parse_json(filter, "filter") if filter else None, caller)


def search_form(
    fields: FormData, active_model: str, caller: Caller
) -> tuple[UploadFile | list[Example], SearchOptions]:
    """Returns the ``image`` of POST /search, or its examples, and the options beside it.

    Raises Problem 403 if the id of an example is beyond the prefix of the caller's key.
    """
    fields = _without_empty(fields)
    if "positive" in fields or "negative" in fields:
        options = _options(fields, ("positive", "negative"), active_model, caller)
        return _examples(fields, caller), _without_region(options)
    files = fields.getlist("image")
    if len(files) != 1:
        raise Problem(422, "missing-field", "image: send exactly one file part of that name")
    return _file(files[0], "image"), _options(fields, ("image",), active_model, caller)


def batch_form(
    fields: FormData, active_model: str, caller: Caller
) -> tuple[list[UploadFile], SearchOptions]:
    """Returns the ``images`` of POST /search/batch and the options beside them."""
    files = fields.getlist("images")
    if not files:
        raise Problem(422, "missing-field", "images: send at least one file part of that name")
    options = _options(fields, ("images",), active_model, caller)
    if options.pages:
        raise Problem(422, "invalid-field", "pages: search for one image at a time")
    if len(files) * options.k > MAX_BATCH_RESULTS:
        raise Problem(
            422,
            "too-many-results",
            f"k: {len(files)} images × {options.k} results; at most {MAX_BATCH_RESULTS} in all",
        )
    return [_file(file, "images") for file in files], options


def artifact_form(fields: FormData) -> tuple[UploadFile, UploadFile, UploadFile | None]:
    """Returns ``config``, ``weights`` and ``graph`` of POST /models.

    A model of an earlier format has no graph; what runs it says whether it can.
    """
    _require_known(fields, {"config", "weights", "graph"})
    if len(fields.getlist("graph")) > 1:
        raise Problem(422, "invalid-field", "graph: send at most one file part of that name")
    for name in ("config", "weights"):
        if len(fields.getlist(name)) != 1:
            raise Problem(422, "missing-field", f"{name}: send exactly one file part of that name")
    graph = _file(fields["graph"], "graph") if "graph" in fields else None
    return _file(fields["config"], "config"), _file(fields["weights"], "weights"), graph


async def search_json(
    request: Request, active_model: str, caller: Caller, cursor_key: bytes
) -> tuple[str | Cursor | list[Example], SearchOptions]:
    """Returns the id, the cursor or the examples, and the options, of the JSON body of
    POST /search.

    Raises Problem 403 if the id is beyond the prefix of the caller's key, InvalidCursor.
    """
    value = await json_body(request, MAX_JSON_BYTES)
    if isinstance(value, dict) and "cursor" in value:
        wanted = _validate(SearchByCursorBody, value)
        cursor = decode_cursor(wanted.cursor, cursor_key)
        selection = _selection(cursor.filter, caller)
        return cursor, SearchOptions(
            wanted.k or cursor.k, cursor.min_score, False, selection, pages=True
        )
    if isinstance(value, dict) and value.keys() & {"positive", "negative"}:
        several = _validate(SearchByExamplesBody, value)
        _require_model(several.model, active_model)
        examples = [Example(each.id, each.weight) for each in several.positive]
        examples += [Example(e.id, -NEGATIVE_WEIGHT * e.weight) for e in several.negative]
        return _checked(examples, caller), _without_region(several.options(caller))
    body = _validate(SearchByIdBody, value)
    _require_model(body.model, active_model)
    if not body.id.startswith(caller.prefix):
        raise outside(caller.prefix)
    return body.id, body.options(caller)


async def import_json(request: Request) -> str:
    """Returns the source named by the JSON body of POST /jobs/import."""
    return _validate(ImportBody, await json_body(request, MAX_JSON_BYTES)).source


async def key_json(request: Request) -> KeyBody:
    """Returns the JSON body of POST /keys."""
    return _validate(KeyBody, await json_body(request, MAX_JSON_BYTES))


async def metadata_json(request: Request) -> str | None:
    """Returns the metadata of the JSON body of PATCH /images/{id}, as JSON text or None."""
    body = await json_body(request, MAX_METADATA_JSON_BYTES)
    return encode_metadata(_validate(MetadataBody, body).metadata, "metadata")


def _without_empty(fields: FormData) -> FormData:
    """Drops empty text fields, which web forms send for fields that nobody filled in."""
    return FormData([(name, value) for name, value in fields.multi_items() if value != ""])


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


def _without_region(options: SearchOptions) -> SearchOptions:
    if options.region is not None:
        raise Problem(422, "invalid-field", "region: search for one image at a time")
    return options


def _options(
    fields: FormData, images: Collection[str], active_model: str, caller: Caller
) -> SearchOptions:
    given = [name for name, _ in fields.multi_items() if name not in images]
    for name in sorted(set(given)):
        if given.count(name) > 1:
            raise Problem(422, "repeated-field", f"{name}: send at most one field of that name")
    sent = _without_empty(fields).multi_items()
    rest = {name: value for name, value in sent if name not in images}
    for name in ("filter", "region"):
        if isinstance(text := rest.get(name), str):
            if len(text) > MAX_JSON_BYTES:
                detail = f"{name}: {len(text)} characters; at most {MAX_JSON_BYTES}"
                raise Problem(422, "field-too-large", detail)
            rest[name] = parse_json(text, name)
    search = _validate(SearchFields, rest)
    _require_model(search.model, active_model)
    return search.options(caller)


def _selection(value: Any, caller: Caller) -> Selection:
    chosen = None if value in (None, {}) else filters.parse(value)
    return Selection(chosen, caller.prefix)


def _require_model(wanted: str | None, active_model: str) -> None:
    if wanted and wanted != active_model:
        detail = f"model: {wanted[:64]} is not the active model, {active_model}"
        raise Problem(409, "other-model", detail)


def _validate(model: type[Arguments], value: Any) -> Arguments:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        places = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()]
        raise Problem(422, "invalid-field", "; ".join(places)) from error


def _require_known(fields: FormData, known: set[str]) -> None:
    unknown = sorted(set(fields) - known)
    if unknown:
        detail = f"{', '.join(unknown)[:200]}: unknown; the fields are {sorted(known)}"
        raise Problem(422, "unknown-field", detail)


def _file(part: UploadFile | str, name: str) -> UploadFile:
    if isinstance(part, str):
        raise Problem(422, "not-a-file", f"{name}: send it as a file part, with a filename")
    return part


def _echoed_name(filename: str | None) -> str:
    """Shortens the name of a file, and replaces lone surrogates, so that a reply can echo it."""
    return (filename or "")[:MAX_ECHOED_NAME].encode("utf-8", "replace").decode()


def _text(fields: FormData, name: str) -> str | None:
    values = fields.getlist(name)
    if len(values) > 1:
        raise Problem(422, "repeated-field", f"{name}: send at most one field of that name")
    if values and not isinstance(values[0], str):
        raise Problem(422, "not-text", f"{name}: send it as a text field, not as a file")
    return str(values[0]) if values else None


def _array(fields: FormData, name: str, length: int) -> list[Any] | None:
    text = _text(fields, name)
    if text is None:
        return None
    # Parsed JSON may take twenty times the memory of its text.
    if len(text) > length * MAX_METADATA_JSON_BYTES:
        raise Problem(
            422,
            "field-too-large",
            f"{name}: {len(text)} characters; at most {MAX_METADATA_JSON_BYTES} for each image",
        )
    value = parse_json(text, name)
    if not isinstance(value, list) or len(value) != length:
        detail = f"{name}: expected a JSON array of {length}, one for each image"
        raise Problem(422, "wrong-length", detail)
    return value


def _require_prefix(ids: list[Any], caller: Caller) -> None:
    for place, id in enumerate(ids):
        if not (isinstance(id, str) and id.startswith(caller.prefix)):
            raise outside(caller.prefix, f"ids[{place}]: ")


def _id(value: Any, place: int) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Problem(422, "invalid-id", f"ids[{place}]: expected a string or null")
    # An invalid id fails its image alone, and the reply echoes it: shortened, no lone surrogates.
    return value and value[:MAX_ECHOED_ID].encode("utf-8", "replace").decode()
