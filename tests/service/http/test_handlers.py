"""Tests of replies to unexpected errors, and to clients that are gone."""

import logging

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.types import Message

from service.access.audit import Audit
from service.http import handlers
from service.http.middleware.boundary import ResponseHeaders
from service.http.middleware.connection import CONNECTION
from service.http.middleware.request_timer import RequestTimer
from service.telemetry.metrics import Metrics


def test_an_unexpected_error_has_the_id_of_its_request(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    handlers.install(app)
    app.add_middleware(RequestTimer, metrics=Metrics(), audit=Audit(None))

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a secret")

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/broken", headers={"X-Request-Id": "shop-8"})

    with caplog.at_level(logging.INFO):
        reply = anyio.run(get)
    assert reply.status_code == 500 and "secret" not in reply.text
    assert reply.headers["X-Request-Id"] == reply.json()["request"] == "shop-8"
    assert "a secret" in caplog.text


@pytest.mark.parametrize("closing", [True, False])
def test_a_reply_to_a_client_that_is_gone_is_dropped(closing: bool) -> None:
    async def send(message: Message) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {
        "type": "http", "path": "/", "method": "GET", "headers": [],
        "extensions": {CONNECTION: {"closing": lambda: closing}},
    }  # fmt: skip
    app = ResponseHeaders(PlainTextResponse("found"))
    if closing:
        anyio.run(app, scope, receive, send)
    else:
        with pytest.raises(RuntimeError):
            anyio.run(app, scope, receive, send)
