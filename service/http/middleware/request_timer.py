"""Counts requests, measures their stages and records writes.

The measurements are for metrics and the Server-Timing header, the records for the audit log.
"""

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import anyio
from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.audit import Audit
from service.http.middleware.tracing import Tracing
from service.telemetry import timing
from service.telemetry.logs import new_request_id, request_id
from service.telemetry.metrics import Metrics

STAGES = ("decode", "queue", "encode", "scan", "db")
SAFE = ("GET", "HEAD", "OPTIONS")
MOST_PATH = 300  # characters of a path in the audit log
SEARCHES = ("/search", "/search/batch")
log = logging.getLogger("gpq.access")
UNKNOWN = "(none)"  # label of requests that match no route


class RequestTimer:
    """ASGI middleware that counts and logs each request and reports where its time went.

    A request has an id, which the client may give as X-Request-Id.

    Routes leave what they have changed in ``request.state.about``, and headers of every reply in
    ``request.state.headers``.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, audit: Audit, tracing: Tracing | None = None
    ) -> None:
        self.app, self.metrics, self.audit, self.tracing = app, metrics, audit, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        state = scope.setdefault("state", {})  # before the scope is copied
        given = Headers(scope=scope).get("x-request-id", "")
        state["request_id"] = new_request_id(given)
        request_id.set(state["request_id"])
        status, received, sent = 500, 0, 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_timed(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                total = time.perf_counter() - started
                headers = MutableHeaders(scope=message)
                headers["Server-Timing"] = _server_timing(spent, total)
                headers["X-Request-Id"] = state["request_id"]
                headers.update(state.get("headers", {}))
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if self.tracing is not None and last:
                self.tracing.record(spent, state["request_id"])
            await send(message)
            sent += len(message.get("body", b""))

        with timing.collected() as spent:
            try:
                await self.app(scope, receive_counted, send_timed)
            finally:
                seconds = time.perf_counter() - started
                cost = _Cost(status, seconds, spent, received, sent)
                self._count(scope, cost)
                _log(scope, cost)
                await self._record(scope, status, state)

    def _count(self, scope: Scope, cost: "_Cost") -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN)
        method = scope["method"] if route != UNKNOWN else UNKNOWN
        self.metrics.requests.labels(method, route, cost.status).inc()
        self.metrics.seconds.labels(method, route).observe(cost.seconds)
        self.metrics.cpu_seconds.labels(method, route).observe(cost.spent.cpu)
        self.metrics.received_bytes.labels(method, route).inc(cost.received)
        self.metrics.sent_bytes.labels(method, route).inc(cost.sent)
        for stage, stage_seconds in cost.spent.stages.items():
            self.metrics.stage_seconds.labels(stage).observe(stage_seconds)

    async def _record(self, scope: Scope, status: int, state: dict[str, Any]) -> None:
        """Records what somebody who has a key, if any are needed, has changed or tried to."""
        route = getattr(scope.get("route"), "path", UNKNOWN)
        caller, client = state.get("caller"), scope.get("client")
        read = scope["method"] in SAFE or route in SEARCHES
        if self.audit.path is None or caller is None or read or route == UNKNOWN:
            return
        more = {
            "path": scope["path"][:MOST_PATH], **state.get("about", {}), "status": status,
            "address": client[0] if client else "", "request": state["request_id"],
        }  # fmt: skip
        write = partial(self.audit.record, caller.name, f"{scope['method']} {route}", **more)
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(write)


@dataclass(frozen=True)
class _Cost:
    """What a request has taken. ``received``, ``sent``: bytes of the bodies."""

    status: int
    seconds: float
    spent: timing.Spent
    received: int
    sent: int


def _log(scope: Scope, cost: _Cost) -> None:
    client = scope.get("client")
    address, path = client[0] if client else "-", quote(scope["path"])
    milliseconds = round(cost.seconds * 1000, 1)
    log.info(
        "%s %s %s %d in %s ms", address, scope["method"], path, cost.status, milliseconds,
        extra={"address": address, "method": scope["method"], "path": path, "status": cost.status,
               "ms": milliseconds, "cpu_ms": round(cost.spent.cpu * 1000, 1),
               "received_bytes": cost.received, "sent_bytes": cost.sent},
    )  # fmt: skip


def _server_timing(spent: timing.Spent, total: float) -> str:
    """Returns a Server-Timing header (W3C), in milliseconds."""
    stages = {stage: spent.stages[stage] for stage in STAGES if stage in spent.stages}
    named = {**stages, "total": total}
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in named.items())
