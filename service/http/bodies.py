"""Reads request bodies within limits of size and time: multipart forms and JSON."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import anyio
from fastapi import Request
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from service.http.problems import Problem

BODY_SECONDS = 300  # how long a body may take to arrive
MAX_FIELD_BYTES = 18 * 2**20  # one text field of a form: the metadata of a whole request
MAX_FIELDS = 4  # text fields of a form
SMALL_BODY_BYTES = 8 * 2**20  # a larger body has its files written to disk early
MOST_BYTES = 2**62  # no body is as large
SPOOLED_BYTES = 64 * 2**10  # size from which a file of such a body is written to disk


class _Form(MultiPartParser):
    """A parser that notices whether the form reached its end; a part that was cut is dropped.

    The files of a body that is large, or of unknown size, are spooled to disk early, so that many
    such bodies do not fill the memory.
    """

    ended = False

    def __init__(
        self, headers: Headers, stream: AsyncGenerator[bytes, None], **limits: int
    ) -> None:
        super().__init__(headers, stream, **limits)
        size = announced_bytes(headers)
        if size is None or size > SMALL_BODY_BYTES:
            self.spool_max_size = SPOOLED_BYTES

    def on_end(self) -> None:
        self.ended = True


@asynccontextmanager
async def form(request: Request, max_files: int, setting: str = "") -> AsyncIterator[FormData]:
    """Reads a multipart form; its temporary files are deleted when the context is left.

    ``setting``: the setting that raises ``max_files``. Raises Problem 400, 408, 413 or 415.
    """
    if media_type(request) != "multipart/form-data":
        raise Problem(415, "not-multipart", "send multipart/form-data")
    try:
        with _time_limit():
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
        detail = f"the form is not in the charset that it names: {error}"
        raise Problem(400, "invalid-form", detail) from error
    if not parser.ended:
        await parsed.close()
        detail = "the form is incomplete: its closing boundary is missing"
        raise Problem(400, "invalid-form", detail)
    try:
        yield parsed
    finally:
        await parsed.close()


async def json_body(request: Request, max_bytes: int) -> Any:
    """Reads a JSON body. Raises Problem 408, 413, 415 or 422."""
    if media_type(request) != "application/json":
        raise Problem(415, "not-json", "send application/json")
    received = bytearray()
    with _time_limit():
        async for chunk in request.stream():
            received += chunk
            if len(received) > max_bytes:
                raise Problem(413, "body-too-large", f"JSON here is limited to {max_bytes} bytes")
    return parse_json(bytes(received), "the body")


def announced_bytes(headers: Headers) -> int | None:
    """Returns the Content-Length, or None without a number; larger ones become MOST_BYTES."""
    digits = headers.get("content-length", "")
    if not (digits.isascii() and digits.isdecimal()):
        return None
    # Python refuses to convert thousands of digits.
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= len(str(MOST_BYTES)) else MOST_BYTES


def media_type(request: Request) -> str:
    """Returns the content type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_json(text: str | bytes, where: str) -> Any:
    """Returns the value of a JSON text. Raises Problem 422; its detail begins with ``where``."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "invalid-json", f"{where}: not JSON: {error}") from error


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raises Problem 408 for a slow body, which would occupy its place for ever."""
    try:
        with anyio.fail_after(BODY_SECONDS):
            yield
    except TimeoutError as error:
        detail = f"the body took longer than {BODY_SECONDS} seconds"
        raise Problem(408, "slow-body", detail) from error
