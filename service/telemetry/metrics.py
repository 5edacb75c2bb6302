"""What a process counts and measures, in the text format of Prometheus, and Server-Timing."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.telemetry import timing

STAGES = ("decode", "queue", "encode", "scan", "db")
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
UNKNOWN = "(none)"  # of requests that no route takes: their paths are anything


class Metrics:
    """A registry of its own, so that a process may have more than one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "gpq_requests", "Replies", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "gpq_request_seconds",
            "From the first byte to the last of the reply",
            ["method", "route"],
            registry=registry,
            buckets=SECONDS,
        )
        self.stage_seconds = Histogram(
            "gpq_stage_seconds",
            "Of one request in one stage; of threads at once their sum",
            ["stage"],
            registry=registry,
            buckets=SECONDS,
        )
        self.batch = Histogram(
            "gpq_batch_size",
            "Pictures encoded, queries scanned at once",
            ["work"],
            registry=registry,
            buckets=BATCHES,
        )

        self.device_full = Counter(
            "gpq_device_full", "Times the device had no memory to encode", registry=registry
        )

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """A value that is read when it is asked for."""
        Gauge(name, about, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware: counts each request, and tells where its time went."""

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
        for stage, of_stage in spent.items():
            self.metrics.stage_seconds.labels(stage).observe(of_stage)


def _server_timing(spent: timing.Spent, total: float) -> str:
    """Server-Timing (W3C), in milliseconds."""
    named = {**{stage: spent[stage] for stage in STAGES if stage in spent}, "total": total}
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in named.items())
