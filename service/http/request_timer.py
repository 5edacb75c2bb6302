"""Counts requests and measures their stages, for metrics and the Server-Timing header."""

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.telemetry import timing
from service.telemetry.metrics import Metrics

STAGES = ("decode", "queue", "encode", "scan", "db")
UNKNOWN = "(none)"  # label of requests that match no route


class RequestTimer:
    """ASGI middleware that counts each request and reports where its time went."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_timed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                total = time.perf_counter() - started
                MutableHeaders(scope=message)["Server-Timing"] = _server_timing(spent, total)
            await send(message)

        with timing.collected() as spent:
            try:
                await self.app(scope, receive, send_timed)
            finally:
                self._count(scope, status, spent, time.perf_counter() - started)

    def _count(self, scope: Scope, status: int, spent: timing.Spent, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN)
        method = scope["method"] if route != UNKNOWN else UNKNOWN
        self.metrics.requests.labels(method, route, status).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        for stage, stage_seconds in spent.items():
            self.metrics.stage_seconds.labels(stage).observe(stage_seconds)


def _server_timing(spent: timing.Spent, total: float) -> str:
    """Returns a Server-Timing header (W3C), in milliseconds."""
    named = {**{stage: spent[stage] for stage in STAGES if stage in spent}, "total": total}
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in named.items())
