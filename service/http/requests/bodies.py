"""Reads request bodies within limits of size and time: multipart forms and JSON."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser, MultipartPart

from service.concurrency import wait_budget
from service.concurrency.work import Receiving
from service.errors import Busy
from service.http.headers import announced_bytes
from service.http.problems import Problem

FREE_TEXT_BYTES = 64 * 2**10  # of each form, which do not count, so that usual ones always come in
MAX_TEXT_BYTES = 128 * 2**20  # of the text fields of all forms; their JSON takes some times more
MAX_FIELD_BYTES = 18 * 2**20  # one text field of a form: the metadata of a whole request
MAX_FIELDS = 8  # text fields of a form
SMALL_BODY_BYTES = 8 * 2**20  # a larger body has its files written to disk early
SPOOLED_BYTES = 64 * 2**10  # size from which a file of such a body is written to disk


class _Form(MultiPartParser):
    """A parser that notices whether the form reached its end; a part that was cut is dropped.

    The files of a body that is large, or of unknown size, are spooled to disk early, so that many
    such bodies do not fill the memory.
    """

    ended = False
    text_bytes = 0  # taken of the budget
    _received_text = 0

    def __init__(
        self, headers: Headers, stream: AsyncGenerator[bytes, None], **limits: int
    ) -> None:
        super().__init__(headers, stream, **limits)
        size = announced_bytes(headers)
        if size is None or size > SMALL_BODY_BYTES:
            self.spool_max_size = SPOOLED_BYTES

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self._received_text += end - start
            if self._received_text > FREE_TEXT_BYTES:
                _texts.take(end - start)
                self.text_bytes += end - start
        super().on_part_data(data, start, end)

    def on_end(self) -> None:
        self.ended = True

    def forget(self) -> None:
        """Frees text and files now: an error refers to this parser until its reply is sent, and a
        file that was cut is in no form."""
        for file in self._files_to_close_on_error:
            file.close()
        self.items.clear()
        self._current_part = MultipartPart()
        self._file_parts_to_write.clear()
        _texts.give(self.text_bytes)
        self.text_bytes = 0


@asynccontextmanager
async def form(
    request: Request, max_files: int, setting: str = "", max_fields: int = MAX_FIELDS
) -> AsyncIterator[FormData]:
    """Reads a multipart form; its temporary files are deleted when the context is left.

    ``setting``: the setting that raises ``max_files``. ``max_fields``: text fields. Raises Problem
    400, 413 or 415, SlowBody or Busy.
    """
    if media_type(request) != "multipart/form-data":
        raise Problem(415, "not-multipart", "send multipart/form-data")
    with wait_budget.current().work.receive() as body:
        parser = _Form(
            request.headers,
            _counted(request, body),
            max_files=max_files,
            max_fields=max_fields,
            max_part_size=MAX_FIELD_BYTES,
        )
        try:
            parsed = await _parse(parser, max_files, setting)
        except BaseException:
            parser.forget()
            raise
    try:
        yield parsed
    finally:
        await parsed.close()
        parser.forget()


async def _parse(parser: _Form, max_files: int, setting: str) -> FormData:
    try:
        async with aclosing(parser.stream):
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
    return parsed


async def json_body(request: Request, max_bytes: int) -> Any:
    """Reads a JSON body. Raises Problem 413, 415 or 422, or SlowBody."""
    if media_type(request) != "application/json":
        raise Problem(415, "not-json", "send application/json")
    received = bytearray()
    with wait_budget.current().work.receive() as body:
        async for chunk in _counted(request, body):
            received += chunk
            if len(received) > max_bytes:
                raise Problem(413, "body-too-large", f"JSON here is limited to {max_bytes} bytes")
    return parse_json(bytes(received), "the body")


def media_type(request: Request) -> str:
    """Returns the content type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_json(text: str | bytes, where: str) -> Any:
    """Returns the value of a JSON text. Raises Problem 422; its detail begins with ``where``."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "invalid-json", f"{where}: not JSON: {error}") from error


async def _counted(request: Request, body: Receiving) -> AsyncGenerator[bytes, None]:
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            body.add(len(chunk))
            yield chunk


class _TextBudget:
    """The bytes of text fields of all forms that are being received or read."""

    def __init__(self) -> None:
        self._taken = 0

    def take(self, count: int) -> None:
        """Raises Busy if too many are taken."""
        if self._taken + count > MAX_TEXT_BYTES:
            raise Busy("the text fields of requests in progress are too large together; try again")
        self._taken += count

    def give(self, count: int) -> None:
        self._taken -= count


_texts = _TextBudget()
