"""Tests of fetching, with a real server, and names whose addresses the test decides."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.errors import Busy, FetchFailed, FetchOff, FetchRefused
from service.fetch import fetcher as module
from service.fetch.fetcher import Fetched, Fetcher
from service.fetch.rules import Rules

MOST_BYTES = 100_000
DESCRIPTORS = Path("/proc/self/fd")


class Images(ThreadingHTTPServer):
    """A server whose replies are those of its path. ``asked``: the requests that it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.port = self.server_address[1]
        self.redirects: dict[str, str] = {}
        self.files = {"/image": b"an image"}
        self.header = ""


class Handler(BaseHTTPRequestHandler):
    server: Images

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        if self.path in self.server.redirects:
            self._reply(302, b"", Location=self.server.redirects[self.path])
        elif self.path in self.server.files:
            more = {"Content-Disposition": self.server.header} if self.server.header else {}
            self._reply(200, self.server.files[self.path], **more)
        elif self.path == "/large":
            self._reply(200, b"x" * (MOST_BYTES + 1))
        elif self.path == "/half":
            self._reply(200, b"x" * (MOST_BYTES // 2 + 1))
        elif self.path == "/zipped":
            self._reply(200, b"x", **{"Content-Encoding": "gzip"})
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(50):
                self.wfile.write(b"x")
                time.sleep(0.1)
        elif self.path == "/not-http":
            self.wfile.write(b"SSH-2.0-x\r\n")
        else:
            self._reply(404, b"")

    def _reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Images]:
    """Runs a server of images on a thread."""
    with Images() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def images() -> Iterator[Images]:
    with serving() as server:
        yield server


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """The addresses that names resolve to: one list for each time that a name is looked up."""
    known: dict[str, list[list[str]]] = {}
    resolve = socket.getaddrinfo

    def look_up(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        if host not in known:
            return resolve(host, port, *more, **options)
        answers = known[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (
                socket.AF_INET6 if ":" in each else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (each, port),
            )
            for each in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def fetch(rules: str, *urls: str, seconds: float = 5) -> list[Any]:
    """Returns the bytes, or the errors, of some addresses."""

    async def main() -> list[Any]:
        async with Fetcher(Rules.parse(rules), MOST_BYTES, seconds).files(urls) as found:
            return [each if isinstance(each, Exception) else each.read() for each in found]

    return asyncio.run(main())


def test_an_image_is_fetched_without_credentials(images: Images) -> None:
    here = f"127.0.0.1:{images.port}"
    assert fetch(here, f"http://{here}/image", f"http://{here}/image") == [b"an image"] * 2
    (_, headers), _ = images.asked
    assert {name.lower() for name in headers} == {"host", "user-agent", "accept", "accept-encoding"}
    assert headers["Accept-Encoding"] == "identity"


def test_nothing_is_fetched_if_it_is_off() -> None:
    with pytest.raises(FetchOff):
        fetch("off", "http://example.org/")
    assert fetch("off") == []


def test_each_image_fails_alone(images: Images) -> None:
    here = f"127.0.0.1:{images.port}"
    paths = ["image", "none", "large", "zipped", "not-http", "image"]
    found = fetch(here, *(f"http://{here}/{path}" for path in paths), "http://other/x")
    assert [found[0], found[5]] == [b"an image"] * 2
    for each, words in zip(
        found[1:5], ("status 404", "bytes", "compressed", "no usable reply"), strict=True
    ):
        assert isinstance(each, FetchFailed) and words in str(each)
    assert isinstance(found[6], FetchRefused)


def test_images_of_a_request_have_a_limit_of_bytes_together(images: Images) -> None:
    here = f"127.0.0.1:{images.port}"
    found = fetch(here, *(f"http://{here}/half" for _ in range(3)))
    assert sum(isinstance(each, FetchFailed) for each in found) == 2


def test_a_slow_server_is_given_up(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    here = f"127.0.0.1:{images.port}"
    (found,) = fetch(here, f"http://{here}/slow", seconds=0.5)
    assert isinstance(found, FetchFailed) and "0.5 seconds" in str(found)
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.3)
    (found,) = fetch(here, f"http://{here}/slow", seconds=5)
    assert isinstance(found, FetchFailed) and "this request" in str(found)


def test_there_is_a_limit_of_images() -> None:
    with pytest.raises(FetchRefused, match="100"):
        fetch("public", *["http://example.org/"] * 101)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0.0.0.0", "0", "localhost",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]",
        "169.254.169.254", "[fe80::1]", "10.0.0.1", "224.0.0.1",
    ],
)  # fmt: skip
def test_a_server_of_another_network_is_not_asked(host: str, images: Images) -> None:
    for rules in ("public", host.strip("[]") if ":" not in host else host):
        (found,) = fetch(rules, f"http://{host}/image", seconds=2)
        assert isinstance(found, FetchRefused | FetchFailed), rules
    assert images.asked == []


def test_a_name_must_lead_to_public_addresses_alone(
    images: Images, names: dict[str, list[list[str]]]
) -> None:
    names["inside.example"] = [["127.0.0.1"]]
    names["both.example"] = [["8.8.8.8", "127.0.0.1"]]
    names["translated.example"] = [["64:ff9b::7f00:1"]]
    for host in names:
        (found,) = fetch("public", f"http://{host}/image")
        assert isinstance(found, FetchRefused) and "not public" in str(found)
        (found,) = fetch(host, f"http://{host}/image")
        assert isinstance(found, FetchRefused)
    (found,) = fetch("public", "http://no-such-name.invalid/image")
    assert isinstance(found, FetchFailed) and "cannot be found" in str(found)


def test_a_name_that_changes_its_address_leads_nowhere_else(
    images: Images, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the first answer is public, the later ones are loopback."""
    connected: list[str] = []
    connect = module.httpcore.AnyIOBackend.connect_tcp

    async def watched(self: Any, host: str, *more: Any, **options: Any) -> Any:
        connected.append(host)
        return await connect(self, host, *more, **options)

    monkeypatch.setattr(module.httpcore.AnyIOBackend, "connect_tcp", watched)
    names["rebinding.example"] = [["192.0.43.8"], ["127.0.0.1"]]
    (found,) = fetch("public", "http://rebinding.example/image", seconds=0.5)
    assert isinstance(found, FetchFailed)
    assert connected == ["192.0.43.8"]
    (found,) = fetch("public", "http://rebinding.example/image")
    assert isinstance(found, FetchRefused)
    assert images.asked == []


def test_redirects_are_checked_like_addresses(
    images: Images, names: dict[str, list[list[str]]]
) -> None:
    here = f"127.0.0.1:{images.port}"
    names["inside.example"] = [["127.0.0.1"]]
    images.redirects = {
        "/twice": "/once", "/once": "/image", "/for-ever": "/for-ever",
        "/inside": "http://localhost/image", "/metadata": "http://169.254.169.254/latest/",
        "/name": "http://inside.example/image", "/file": "file:///etc/passwd",
        "/port": f"http://127.0.0.1:{images.port + 1}/image", "/user": f"http://a:b@{here}/image",
        "/bad": "http://[", "/scheme": "//localhost/image",
    }  # fmt: skip
    assert fetch(here, f"http://{here}/twice") == [b"an image"]
    (found,) = fetch(here, f"http://{here}/for-ever")
    assert isinstance(found, FetchFailed) and "more than 3 times" in str(found)
    asked = len(images.asked)
    refused = ["inside", "metadata", "name", "file", "port", "user", "scheme"]
    found = fetch(f"{here}, inside.example", *(f"http://{here}/{path}" for path in refused))
    assert [type(each) for each in found] == [FetchRefused] * len(refused), found
    (found,) = fetch(here, f"http://{here}/bad")
    assert isinstance(found, FetchRefused | FetchFailed)
    assert len(images.asked) == asked + len(refused) + 1  # the first addresses, and no others


def test_files_are_closed_when_the_caller_is_done(images: Images) -> None:
    here = f"127.0.0.1:{images.port}"

    async def main() -> Fetched:
        async with Fetcher(Rules.parse(here), MOST_BYTES, 5).files([f"http://{here}/image"]) as all:
            return all[0]

    file = asyncio.run(main())
    assert not isinstance(file, Exception) and file.closed


def test_two_images_of_a_request_are_fetched_at_a_time(images: Images) -> None:
    here = f"127.0.0.1:{images.port}"
    began = time.monotonic()
    found = fetch(here, *[f"http://{here}/slow"] * 4, seconds=0.5)
    assert all(isinstance(each, FetchFailed) for each in found)
    assert 0.9 < time.monotonic() - began < 4


def test_the_whole_path_is_asked_for(images: Images) -> None:
    here = f"127.0.0.1:{images.port}"
    images.files["/a;v=2/b;c=3?x=;y"] = b"this one"
    assert fetch(here, f"http://{here}/a;v=2/b;c=3?x=;y#part") == [b"this one"]


def test_headers_may_have_any_bytes(images: Images) -> None:
    here = f"127.0.0.1:{images.port}"
    images.files["/named"] = b"an image"
    images.header = "inline; filename=é.jpg"
    assert fetch(here, f"http://{here}/named") == [b"an image"]


def test_a_handshake_that_stalls_leaves_no_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        here = f"127.0.0.1:{silent.getsockname()[1]}"
        before = sum(1 for _ in DESCRIPTORS.iterdir())
        found = fetch(here, *[f"https://{here}/x"] * 6, seconds=0.3)
        assert all(isinstance(each, FetchFailed) for each in found)
        assert sum(1 for _ in DESCRIPTORS.iterdir()) <= before


def test_many_requests_at_once_are_refused(images: Images) -> None:
    here = f"127.0.0.1:{images.port}"

    async def main() -> list[Any]:
        fetcher = Fetcher(Rules.parse(here), MOST_BYTES, 2)

        async def one() -> Any:
            try:
                async with fetcher.files([f"http://{here}/image"]) as found:
                    return found[0]
            except Busy as error:
                return error

        return await asyncio.gather(*(one() for _ in range(module.MOST_REQUESTS + 3)))

    found = asyncio.run(main())
    assert sum(isinstance(each, Busy) for each in found) == 3
