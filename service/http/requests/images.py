"""Checks the fields of requests, but for searches.

Every function may raise Problem 409 or 422, InvalidMetadata or MetadataTooLarge, and those that
read a JSON body what ``bodies.json_body`` raises.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
)
from starlette.datastructures import FormData, UploadFile

from service.access.keys import Caller
from service.catalogue.ingest import Upload
from service.catalogue.metadata import MAX_METADATA_BYTES, encode_metadata
from service.database.job_records import Scope
from service.database.records import KEEP, Keep
from service.errors import FetchFailed, FetchRefused
from service.fetch.fetcher import Fetched
from service.http.problems import Problem, outside
from service.http.requests.bodies import json_body, parse_json
from service.http.requests.fields import (
    MAX_ECHOED_ID,
    MAX_JSON_BYTES,
    file_of,
    require_known,
    require_model,
    text_of,
    urls_of,
    validate,
    without_empty,
)

MAX_ECHOED_NAME = 255  # characters of a file's name that the reply echoes
MAX_METADATA_JSON_BYTES = 8 * MAX_METADATA_BYTES  # JSON with \u escapes and spaces is longer
MAX_PATH = 4096  # characters of the source of an import


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


@dataclass(frozen=True)
class ImagesToStore:
    """The images of POST /index: ``files``, and then those of ``urls``, with what is said of each
    in order. ``ids``: None where there is none."""

    files: list[UploadFile]
    urls: list[str]
    ids: list[str | None]
    metadata: list[str | Keep | None]

    def uploads(self, fetched: Sequence[Fetched]) -> list[Upload]:
        """Returns what is to be stored. ``fetched``: the files of the urls, or why there are
        none."""
        files: list[Fetched] = [*(file.file for file in self.files), *fetched]
        names = [_echoed_name(name) for name in (*(f.filename for f in self.files), *self.urls)]
        return [
            Upload(io.BytesIO(), name, id, metadata, error=file)
            if isinstance(file, FetchRefused | FetchFailed)
            else Upload(file, name, id, metadata)
            for file, name, id, metadata in zip(files, names, self.ids, self.metadata, strict=True)
        ]


def index_form(fields: FormData, active_model: str, caller: Caller) -> ImagesToStore:
    """Returns the ``images``, ``image_urls``, ``ids`` and ``metadata`` of POST /index, and checks
    its ``model``.

    Raises Problem 403 if an id is beyond the prefix of the caller's key.
    """
    fields = without_empty(fields)
    require_known(fields, {"images", "image_urls", "ids", "metadata", "model"})
    files = [file_of(file, "images") for file in fields.getlist("images")]
    urls = urls_of(fields)
    count = len(files) + len(urls)
    if not count:
        raise Problem(422, "missing-field", "images: send at least one file part of that name")
    ids = _array(fields, "ids", count)
    metadata = _array(fields, "metadata", count)
    if caller.prefix:
        _require_prefix(ids or [None] * count, caller)
    require_model(text_of(fields, "model"), active_model)
    return ImagesToStore(
        files,
        urls,
        [None] * count if ids is None else [_id(ids[n], n) for n in range(count)],
        [KEEP] * count
        if metadata is None
        else [encode_metadata(metadata[n], f"metadata[{n}]") for n in range(count)],
    )


def artifact_form(fields: FormData) -> tuple[UploadFile, UploadFile, UploadFile | None]:
    """Returns ``config``, ``weights`` and ``graph`` of POST /models.

    A model of an earlier format has no graph; what runs it says whether it can.
    """
    require_known(fields, {"config", "weights", "graph"})
    if len(fields.getlist("graph")) > 1:
        raise Problem(422, "invalid-field", "graph: send at most one file part of that name")
    for name in ("config", "weights"):
        if len(fields.getlist(name)) != 1:
            raise Problem(422, "missing-field", f"{name}: send exactly one file part of that name")
    graph = file_of(fields["graph"], "graph") if "graph" in fields else None
    return file_of(fields["config"], "config"), file_of(fields["weights"], "weights"), graph


async def import_json(request: Request) -> str:
    """Returns the source named by the JSON body of POST /jobs/import."""
    return validate(ImportBody, await json_body(request, MAX_JSON_BYTES)).source


async def key_json(request: Request) -> KeyBody:
    """Returns the JSON body of POST /keys."""
    return validate(KeyBody, await json_body(request, MAX_JSON_BYTES))


async def metadata_json(request: Request) -> str | None:
    """Returns the metadata of the JSON body of PATCH /images/{id}, as JSON text or None."""
    body = await json_body(request, MAX_METADATA_JSON_BYTES)
    return encode_metadata(validate(MetadataBody, body).metadata, "metadata")


def _echoed_name(filename: str | None) -> str:
    """Shortens the name of a file, and replaces lone surrogates, so that a reply can echo it."""
    return (filename or "")[:MAX_ECHOED_NAME].encode("utf-8", "replace").decode()


def _array(fields: FormData, name: str, length: int) -> list[Any] | None:
    text = text_of(fields, name)
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
