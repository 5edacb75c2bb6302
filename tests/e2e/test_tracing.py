"""Tests of the traces that the service sends to a collector."""

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from harness.images import png
from harness.processes import environment, free_port
from harness.server import Server

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
NAMES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Collector:
    """Receives traces over HTTP (the OpenTelemetry Protocol). ``spans``: those received."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.receive(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def receive(self, request: ExportTraceServiceRequest) -> None:
        for of_process in request.resource_spans:
            attributes = of_process.resource.attributes
            self.services |= {
                each.value.string_value for each in attributes if each.key == "service.name"
            }
            for of_library in of_process.scope_spans:
                self.spans += of_library.spans


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_a_request_is_traced_with_its_stages(
    random_model: Path, tmp_path: Path, collector: Collector
) -> None:
    server = Server(tmp_path, model=random_model)
    server.variables = {NAMES[0]: collector.url}
    with server:
        server.index(png(1))
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "shop-9"}
        reply = server.http.post("/search", files={"image": png(1)}, headers=headers)
        assert reply.status_code == 200
        for path in ("/metrics", "/livez", "/images/metrics-1"):
            server.http.get(path)
    spans = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    (request,) = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert request.name == "POST /search" and request.parent_span_id.hex() == PARENT
    attributes = {each.key: each.value for each in request.attributes}
    assert attributes["gpq.request_id"].string_value == "shop-9"
    assert attributes["gpq.cpu_seconds"].double_value > 0
    stages = [span for span in spans if span is not request]
    assert {span.name for span in stages} == {"decode", "queue", "encode", "scan", "db"}
    for span in stages:
        assert span.parent_span_id == request.span_id
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert request.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    assert collector.services == {"gpq"}
    requests = [span.name for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert sorted(set(requests)) == ["GET /images/{id}", "POST /index", "POST /search"]


def test_a_collector_that_is_down_costs_no_request(random_model: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, model=random_model)
    server.variables = {NAMES[1]: f"http://127.0.0.1:{free_port()}/v1/traces"}
    with server:
        assert server.index(png(1)).status_code == 200
        assert len(server.search(png(1)).json()["results"]) == 1


def test_tracing_without_its_packages_says_what_to_install(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "sitecustomize.py"
    hidden.parent.mkdir()
    hidden.write_text('import sys\nsys.modules["opentelemetry.sdk"] = None\n')
    variables = environment(port=free_port())
    variables["PYTHONPATH"] = f"{hidden.parent}:{variables['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=tmp_path,
        env={**variables, NAMES[0]: "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "install gpq-search[tracing]" in done.stderr
