import anyio
import pytest
from starlette.datastructures import UploadFile
from starlette.requests import Request

from service.access.keys import ANYBODY
from service.concurrency import work
from service.errors import SlowBody
from service.http.problems import problem_of
from service.http.requests import bodies, searches


def endless(content_type: str) -> Request:
    """Returns a request whose body never ends."""

    async def receive() -> dict[str, object]:
        await anyio.sleep(0.01)
        return {"type": "http.request", "body": b"", "more_body": True}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def test_a_body_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "BODY_SECONDS", 0.1)

    async def read_form() -> None:
        async with bodies.form(endless("multipart/form-data; boundary=b"), 1):
            pass

    async def read_json() -> None:
        await searches.search_json(endless("application/json"), "m", ANYBODY, b"")

    for read in (read_form, read_json):
        with pytest.raises(SlowBody) as caught:
            anyio.run(read)
        problem = problem_of(caught.value)
        assert problem is not None and (problem.status, problem.code) == (408, "slow-body")


def posted(size: int, length: int | None) -> Request:
    """Returns a form with a file of ``size`` bytes; ``length`` is its Content-Length."""
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    body = [head + bytes(size) + b"\r\n--b--\r\n"]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body.pop(), "more_body": False}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


@pytest.mark.parametrize(
    ("size", "length", "in_memory"),
    [
        (100_000, 100_000, True),
        (100_000, 100_000_000, False),
        (100_000, None, False),
        (60_000, 100_000_000, True),
        (1_100_000, 1_100_000, False),
    ],
)
def test_files_of_a_body_that_may_be_large_are_kept_on_disk(
    size: int, length: int | None, in_memory: bool
) -> None:
    async def read() -> None:
        async with bodies.form(posted(size, length), 1) as fields:
            file = fields["image"]
            assert isinstance(file, UploadFile) and file._in_memory is in_memory
            assert await file.read() == bytes(size)

    anyio.run(read)
