"""Reads the fields of requests: what every route needs for it."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from service.http.problems import Problem
from service.http.requests.bodies import parse_json

MAX_ECHOED_ID = 200  # characters of an invalid id that the error echoes
MAX_JSON_BYTES = 64 * 2**10  # a JSON body, and a field of JSON that is not for each image

MAX_URLS_TEXT = 2**18  # characters of image_urls

Arguments = TypeVar("Arguments", bound=BaseModel)


def without_empty(fields: FormData) -> FormData:
    """Drops empty text fields, which web forms send for fields that nobody filled in."""
    return FormData([(name, value) for name, value in fields.multi_items() if value != ""])


def require_model(wanted: str | None, active_model: str) -> None:
    if wanted and wanted != active_model:
        detail = f"model: {wanted[:64]} is not the active model, {active_model}"
        raise Problem(409, "other-model", detail)


def validate(model: type[Arguments], value: Any) -> Arguments:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        places = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()]
        raise Problem(422, "invalid-field", "; ".join(places)) from error


def require_known(fields: FormData, known: set[str]) -> None:
    unknown = sorted(set(fields) - known)
    if unknown:
        detail = f"{', '.join(unknown)[:200]}: unknown; the fields are {sorted(known)}"
        raise Problem(422, "unknown-field", detail)


def file_of(part: UploadFile | str, name: str) -> UploadFile:
    if isinstance(part, str):
        raise Problem(422, "not-a-file", f"{name}: send it as a file part, with a filename")
    return part


def text_of(fields: FormData, name: str) -> str | None:
    values = fields.getlist(name)
    if len(values) > 1:
        raise Problem(422, "repeated-field", f"{name}: send at most one field of that name")
    if values and not isinstance(values[0], str):
        raise Problem(422, "not-text", f"{name}: send it as a text field, not as a file")
    return str(values[0]) if values else None


def urls_of(fields: FormData) -> list[str]:
    """Returns the addresses of ``image_urls``, a JSON array; [] without the field."""
    text = text_of(fields, "image_urls")
    if text is None:
        return []
    if len(text) > MAX_URLS_TEXT:
        detail = f"image_urls: {len(text)} characters; at most {MAX_URLS_TEXT}"
        raise Problem(422, "field-too-large", detail)
    value = parse_json(text, "image_urls")
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Problem(422, "invalid-field", "image_urls: expected a JSON array of strings")
    return value
