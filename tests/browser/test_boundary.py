"""Tests in Chromium that pages of other origins cannot use the service."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from harness.images import png
from harness.server import Server
from tests.browser.conftest import CHROMIUM, FLAGS

PAGE = b"<!doctype html><title>elsewhere</title>"
# Sends what a form may send to any address, without asking it first.
SEND = """async (url) => {
    const canvas = new OffscreenCanvas(40, 40);
    canvas.getContext("2d").fillRect(0, 0, 20, 20);
    const image = await canvas.convertToBlob();
    const form = new FormData();
    form.append("images", image, "a.png");
    form.append("ids", '["x"]');
    await fetch(url + "/index", {method: "POST", mode: "no-cors", body: form}).catch(() => null);
}"""
READ = "async (url) => fetch(url + '/images/x').then(() => true, () => false)"


class Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Serves a page on another port of this machine; returns its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever).start()
    yield str(server.server_port)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_page_elsewhere_neither_changes_nor_reads_anything(
    browser: Browser, elsewhere: str, name: str, random_model: Path, tmp_path: Path
) -> None:
    """The page is of the same site as the service (another port), or of another site."""
    with Server(tmp_path, model=random_model) as server:
        assert server.index(png(1), ids='["x"]').status_code == 200
        before = server.http.get("/images/x").json()
        page = browser.new_page()
        page.goto(f"http://{name}:{elsewhere}/")
        page.evaluate(SEND, server.url)
        counted = server.http.get("/metrics").text.splitlines()
        assert any('status="403"' in line and "requests_total" in line for line in counted)
        assert page.evaluate(READ, server.url) is False
        page.close()
        assert server.http.get("/images/x").json() == before
        assert server.http.get("/stats").json()["images"] == 1


def test_a_name_that_resolves_to_this_machine_opens_nothing(
    browser: Browser, random_model: Path, tmp_path: Path
) -> None:
    rebound = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
    with Server(tmp_path, model=random_model) as server:
        url = server.url.replace("127.0.0.1", "rebound.example")
        other = browser.browser_type.launch(executable_path=CHROMIUM, args=[*FLAGS, rebound])
        page = other.new_page()
        for path in ("/", "/stats", "/images"):
            reply = page.goto(url + path)
            assert reply is not None and reply.status == 421
        other.close()
