"""Request bodies -> checked arguments. Everything wrong in them is a 4xx Problem."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.catalogue.ingest import Upload
from service.catalogue.metadata import encode_metadata
from service.database.records import KEEP
from service.problems import Problem
from service.settings import (
    BODY_SECONDS,
    DEFAULT_RESULTS,
    ID_PATTERN,
    MAX_BATCH_RESULTS,
    MAX_ECHOED_ID,
    MAX_ECHOED_NAME,
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_JSON_BYTES,
    MAX_METADATA_BYTES,
    MAX_METADATA_JSON_BYTES,
    MAX_PATH,
    MAX_RESULTS,
    SMALL_BODY_BYTES,
    SPOOLED_BYTES,
)

Arguments = TypeVar("Arguments", bound=BaseModel)


class SearchOptions(BaseModel):
    """Fields of a search beside the picture."""

    model_config = ConfigDict(extra="forbid")

    k: Annotated[int, Field(ge=1, le=MAX_RESULTS, description="how many results, at most")] = (
        DEFAULT_RESULTS
    )
    min_score: Annotated[
        float, Field(ge=-1, le=1, allow_inf_nan=False, description="no results below this score")
    ] = -1.0
    exclude_same: Annotated[
        bool, Field(description="leave out stored pictures of the query's bytes, itself too")
    ] = False
    model: Annotated[
        str, Field(description="id of the model that is expected; 409 for another one")
    ] = ""


class SearchById(SearchOptions):
    """JSON body of a search by a stored picture."""

    id: Annotated[str, Field(pattern=f"^{ID_PATTERN}$", description="id of a stored image")]


class Description(BaseModel):
    """JSON body of a change of metadata."""

    model_config = ConfigDict(extra="forbid")

    metadata: Annotated[
        dict[str, Any] | None,
        Field(
            description=f"replaces what is there; null clears; at most {MAX_METADATA_BYTES} bytes"
        ),
    ]


class ImportWanted(BaseModel):
    """JSON body of an import."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_PATH,
            description="below GPQ_IMPORT_FOLDER: a folder, .csv or .jsonl manifest, or .tar",
        ),
    ]


class _Form(MultiPartParser):
    """Knows whether the form came to its end: a part that was cut is dropped in silence.

    Many large forms must not fill the memory: of one that may be large little is kept there.
    """

    ended = False

    def __init__(
        self, headers: Headers, stream: AsyncGenerator[bytes, None], **limits: int
    ) -> None:
        super().__init__(headers, stream, **limits)
        size = headers.get("content-length", "")
        if not size.isdecimal() or int(size) > SMALL_BODY_BYTES:
            self.spool_max_size = SPOOLED_BYTES

    def on_end(self) -> None:
        self.ended = True


@asynccontextmanager
async def form(request: Request, max_files: int, setting: str = "") -> AsyncIterator[FormData]:
    """The multipart form; its spooled files are gone when it closes. setting: says max_files."""
    if media_type(request) != "multipart/form-data":
        raise Problem(415, "not-multipart", "send multipart/form-data")
    try:
        with _deadline():
            async with aclosing(request.stream()) as stream:
                parser = _Form(
                    request.headers,
                    stream,
                    max_files=max_files,
                    max_fields=MAX_FIELDS,
                    max_part_size=MAX_FIELD_BYTES,
                )
                parsed = await parser.parse()
    except MultiPartException as error:
        if setting and error.message.startswith("Too many files"):
            detail = f"more than {max_files} files; send them in several requests, or set {setting}"
            raise Problem(413, "too-many-images", detail) from error
        raise Problem(400, "invalid-form", error.message) from error
    except UnicodeError as error:
        raise Problem(400, "invalid-form", f"the form is not in its charset: {error}") from error
    if not parser.ended:
        await parsed.close()
        raise Problem(400, "invalid-form", "the form was cut: its closing boundary is missing")
    try:
        yield parsed
    finally:
        await parsed.close()


def media_type(request: Request) -> str:
    """The content type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def index_uploads(fields: FormData, active_model: str) -> list[Upload]:
    """``images``, ``ids``, ``metadata`` and ``model`` of POST /index."""
    fields = _filled(fields)
    _only(fields, {"images", "ids", "metadata", "model"})
    files = fields.getlist("images")
    if not files:
        raise Problem(422, "missing-field", "images: send at least one file part of that name")
    named = _array(fields, "ids", len(files))
    described = _array(fields, "metadata", len(files))
    _require_model(fields.get("model"), active_model)
    return [
        Upload(
            file=_file(file, "images").file,
            name=_shown(_file(file, "images").filename),
            id=None if named is None else _id(named[place], place),
            metadata=KEEP
            if described is None
            else encode_metadata(described[place], f"metadata[{place}]"),
        )
        for place, file in enumerate(files)
    ]


def search_form(fields: FormData, active_model: str) -> tuple[UploadFile, SearchOptions]:
    """``image`` of POST /search, and the options beside it."""
    files = fields.getlist("image")
    if len(files) != 1:
        raise Problem(422, "missing-field", "image: send exactly one file part of that name")
    return _file(files[0], "image"), _options(fields, "image", active_model)


def batch_form(fields: FormData, active_model: str) -> tuple[list[UploadFile], SearchOptions]:
    """``images`` of POST /search/batch, and the options beside them."""
    files = fields.getlist("images")
    if not files:
        raise Problem(422, "missing-field", "images: send at least one file part of that name")
    options = _options(fields, "images", active_model)
    if len(files) * options.k > MAX_BATCH_RESULTS:
        raise Problem(
            422,
            "too-many-results",
            f"k: {len(files)} images × {options.k} results; at most {MAX_BATCH_RESULTS} in all",
        )
    return [_file(file, "images") for file in files], options


def artifact_form(fields: FormData) -> tuple[UploadFile, UploadFile]:
    """``config`` and ``weights`` of POST /models."""
    _only(fields, {"config", "weights"})
    for name in ("config", "weights"):
        if len(fields.getlist(name)) != 1:
            raise Problem(422, "missing-field", f"{name}: send exactly one file part of that name")
    return _file(fields["config"], "config"), _file(fields["weights"], "weights")


async def search_json(request: Request, active_model: str) -> SearchById:
    """The JSON body of POST /search."""
    wanted = _validate(SearchById, await _json_body(request, MAX_JSON_BYTES))
    _require_model(wanted.model, active_model)
    return wanted


async def import_json(request: Request) -> ImportWanted:
    """The JSON body of POST /jobs/import."""
    if media_type(request) != "application/json":
        raise Problem(415, "not-json", "send application/json")
    return _validate(ImportWanted, await _json_body(request, MAX_JSON_BYTES))


async def description(request: Request) -> str | None:
    """The JSON body of PATCH /images/{id} -> its metadata as in ``store.Put``."""
    if media_type(request) != "application/json":
        raise Problem(415, "not-json", "send application/json")
    body = await _json_body(request, MAX_METADATA_JSON_BYTES)
    return encode_metadata(_validate(Description, body).metadata, "metadata")


async def _json_body(request: Request, max_bytes: int) -> Any:
    received = bytearray()
    with _deadline():
        async for chunk in request.stream():
            received += chunk
            if len(received) > max_bytes:
                raise Problem(413, "body-too-large", f"JSON here is limited to {max_bytes} bytes")
    return _json(bytes(received), "the body")


def _filled(fields: FormData) -> FormData:
    """A text field that was left empty, as in a form of a page, is not there."""
    return FormData([(name, value) for name, value in fields.multi_items() if value != ""])


def _options(fields: FormData, picture: str, active_model: str) -> SearchOptions:
    rest = {name: value for name, value in _filled(fields).multi_items() if name != picture}
    options = _validate(SearchOptions, rest)
    _require_model(options.model, active_model)
    return options


def _require_model(wanted: object, active_model: str) -> None:
    if not isinstance(wanted, str | None):
        raise Problem(422, "not-text", "model: send it as a text field, not as a file")
    if wanted and wanted != active_model:
        raise Problem(
            409, "other-model", f"model: {wanted[:64]} is not the active one, {active_model}"
        )


@contextmanager
def _deadline() -> Iterator[None]:
    """A body that trickles in would hold its place for ever."""
    try:
        with anyio.fail_after(BODY_SECONDS):
            yield
    except TimeoutError as error:
        detail = f"the body took longer than {BODY_SECONDS} seconds"
        raise Problem(408, "slow-body", detail) from error


def _validate(model: type[Arguments], value: Any) -> Arguments:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        places = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()]
        raise Problem(422, "invalid-field", "; ".join(places)) from error


def _only(fields: FormData, known: set[str]) -> None:
    unknown = sorted(set(fields) - known)
    if unknown:
        raise Problem(
            422, "unknown-field", f"{', '.join(unknown)[:200]}: the fields are {sorted(known)}"
        )


def _file(part: UploadFile | str, name: str) -> UploadFile:
    if isinstance(part, str):
        raise Problem(422, "not-a-file", f"{name}: send it as a file part, with a filename")
    return part


def _shown(filename: str | None) -> str:
    """A file's name to say back: cut, and without lone surrogates."""
    return (filename or "")[:MAX_ECHOED_NAME].encode("utf-8", "replace").decode()


def _array(fields: FormData, name: str, length: int) -> list[Any] | None:
    text = fields.get(name)
    if text is None:
        return None
    if not isinstance(text, str):
        raise Problem(422, "not-text", f"{name}: send it as a text field, not as a file")
    # Read, it may take twenty times the memory.
    if len(text) > length * MAX_METADATA_JSON_BYTES:
        raise Problem(
            422,
            "field-too-large",
            f"{name}: {len(text)} characters; at most {MAX_METADATA_JSON_BYTES} for each image",
        )
    value = _json(text, name)
    if not isinstance(value, list) or len(value) != length:
        raise Problem(
            422, "wrong-length", f"{name}: expected a JSON array of {length}, one for each image"
        )
    return value


def _json(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "invalid-json", f"{where}: not JSON: {error}") from error


def _id(value: Any, place: int) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Problem(422, "invalid-id", f"ids[{place}]: expected a string or null")
    # Cut, and without lone surrogates: a wrong id fails alone and is said back.
    return value and value[:MAX_ECHOED_ID].encode("utf-8", "replace").decode()
