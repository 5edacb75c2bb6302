"""Tests of replies to unexpected errors."""

import logging

import anyio
import httpx
import pytest
from fastapi import FastAPI

from service.access.audit import Audit
from service.http import handlers
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
