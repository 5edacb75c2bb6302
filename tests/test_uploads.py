import anyio
import pytest
from starlette.requests import Request

from service import metadata, uploads
from service.problems import Problem


def trickling(content_type: str) -> Request:
    """A request whose body never ends."""

    async def receive() -> dict[str, object]:
        await anyio.sleep(0.01)
        return {"type": "http.request", "body": b"", "more_body": True}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def test_a_body_that_trickles_in_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "BODY_SECONDS", 0.1)

    async def read_form() -> None:
        async with uploads.form(trickling("multipart/form-data; boundary=b"), 1):
            pass

    async def read_json() -> None:
        await uploads.search_json(trickling("application/json"), "m")

    for read in (read_form, read_json):
        with pytest.raises(Problem) as caught:
            anyio.run(read)
        assert (caught.value.status, caught.value.code) == (408, "slow-body")


@pytest.mark.parametrize("depth", [1, 63, 64, 65, 200])
def test_depth_is_counted_in_objects_and_arrays(depth: int) -> None:
    value: object = {} if depth == 1 else []
    for level in range(depth - 1):
        value = {"a": value} if level % 2 else [value]
    assert metadata._deeper_than(value, 64) is (depth > 64)
