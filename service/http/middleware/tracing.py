"""Sends a trace of each request to a collector, by OpenTelemetry (the extra ``tracing``).

The variables of OpenTelemetry say where to (OTEL_EXPORTER_OTLP_ENDPOINT) and what the service is
called (OTEL_SERVICE_NAME).
"""

import os
from typing import TYPE_CHECKING

from fastapi import FastAPI

from service.telemetry.timing import Spent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
SERVICE_NAME = "gpq"  # if OTEL_SERVICE_NAME does not say otherwise
UNTRACED = "^[^/]*//[^/]*/(livez|readyz|metrics)$"  # URLs that are asked for all the time
STOP_MILLISECONDS = 2000  # how long a stop waits for the collector
NEEDED = (
    "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the program lacks the packages that send traces: "
    "install gpq-search[tracing]"
)


class Tracing:
    """Traces the requests of an application until ``close``."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace

        self._provider, self._current = provider, trace.get_current_span
        self._tracer = provider.get_tracer("gpq")

    def install(self, app: FastAPI) -> None:
        """Adds the span of each request. Call it when all middleware has been added."""
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=UNTRACED,
            exclude_spans=["receive", "send"],
        )

    def record(self, spent: Spent, request_id: str) -> None:
        """Adds the stages of the current request to its span.

        Call it before the last byte is sent, which ends the span.
        """
        span = self._current()
        if span.is_recording():
            span.set_attributes({"gpq.request_id": request_id, "gpq.cpu_seconds": spent.cpu})
            for each in spent.spans:
                self._tracer.start_span(each.stage, start_time=each.began_ns).end(each.ended_ns)

    def close(self) -> None:
        """Sends what has not been sent yet, if the collector answers."""
        self._provider.force_flush(STOP_MILLISECONDS)


def open_tracing() -> Tracing | None:
    """Returns what the variables of OpenTelemetry ask for; None if they name no collector.

    Raises ValueError if the packages are not installed.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation import fastapi  # noqa: F401
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ValueError(NEEDED) from error
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": SERVICE_NAME}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
