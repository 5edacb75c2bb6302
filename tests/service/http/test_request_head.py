"""Tests of the limits of a request's head, on real sockets."""

import json
import socket
import time
from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from service.http.middleware import request_head

LINE = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
SECONDS = 0.5
MIB = 2**20


@pytest.fixture
def connect(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[[ASGIApp], Callable[[], socket.socket]]
) -> Callable[[], socket.socket]:
    """Serves the number of the bytes of each body; returns a function that connects."""
    monkeypatch.setattr(request_head, "HEAD_SECONDS", SECONDS)

    async def count(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    return serve(Starlette(routes=[Route("/", count, methods=["GET", "POST"])]))


def reply(client: socket.socket) -> tuple[int, bytes]:
    """Reads until the server closes; returns the status of the last reply, and its body."""
    received = b""
    try:
        while chunk := client.recv(MIB):
            received += chunk
    except ConnectionResetError:
        pass
    head, _, body = received.rpartition(b"\r\n\r\n")
    return int(head.rpartition(b"HTTP/1.1 ")[2][:3] or 0), body


def sent(client: socket.socket, data: bytes, times: int) -> int:
    """Sends data several times, until the server closes; returns how often it was sent."""
    for number in range(times):
        try:
            client.sendall(data)
        except OSError:
            return number
    return times


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (LINE + b"A: " + b"x" * 70_000, 431, "headers-too-large"),
        (LINE + 2 * (b"A: " + b"x" * 40_000 + b"\r\n") + b"\r\n", 431, "headers-too-large"),
        (LINE + b"A: x\r\n" * 101, 431, "too-many-headers"),
        (LINE + b"x" * 70_000, 431, "headers-too-large"),
        (b"GET /" + b"x" * 17_000, 414, "url-too-long"),
        (b"GET /" + b"x" * 17_000 + LINE[5:] + b"\r\n", 414, "url-too-long"),
    ],
)
def test_a_large_head_is_refused(
    connect: Callable[[], socket.socket], head: bytes, status: int, code: str
) -> None:
    with connect() as client:
        client.sendall(head)
        found, body = reply(client)
        assert (found, json.loads(body)["code"]) == (status, code)


@pytest.mark.parametrize("start", [b"GET /", LINE + b"A: ", LINE])
def test_a_head_without_end_is_not_read(connect: Callable[[], socket.socket], start: bytes) -> None:
    with connect() as client:
        client.sendall(start)
        assert sent(client, b"x" * MIB, 200) < 20


@pytest.mark.parametrize("head", [b"", b"GET", LINE, LINE + b"A: x"])
def test_a_head_has_a_deadline(connect: Callable[[], socket.socket], head: bytes) -> None:
    started = time.monotonic()
    with connect() as client:
        client.sendall(head)
        status, body = reply(client)
        assert SECONDS * 0.9 < time.monotonic() - started < SECONDS + 5
        assert (status, json.loads(body)["code"]) == (408, "slow-headers")


def test_a_trickle_does_not_prolong_the_deadline(connect: Callable[[], socket.socket]) -> None:
    with connect() as client:
        started = time.monotonic()
        client.sendall(LINE)
        while sent(client, b"A: x\r\n", 1):
            time.sleep(0.05)
            assert time.monotonic() - started < SECONDS + 5


@pytest.mark.parametrize("start", [b"0\r\nA: ", b"0\r\n", b"1;a=", b"1"])
def test_a_chunked_body_hides_no_endless_header(
    connect: Callable[[], socket.socket], start: bytes
) -> None:
    """The header is behind the body, or beside the length of a chunk."""
    with connect() as client:
        client.sendall(b"POST" + LINE[3:] + b"Transfer-Encoding: chunked\r\n\r\n" + start)
        assert sent(client, b"x" * MIB, 200) < 20


def test_many_chunks_are_a_body(connect: Callable[[], socket.socket]) -> None:
    with connect() as client:
        client.sendall(b"POST" + LINE[3:] + b"Transfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"1\r\nx\r\n" * 50_000 + b"0\r\nA: b\r\n\r\n")
        assert b"50000" in client.recv(MIB)


def test_large_heads_and_slow_bodies_within_the_limits_are_served(
    connect: Callable[[], socket.socket],
) -> None:
    """Three requests on one connection, the last two of which arrive together."""
    with connect() as client:
        headers = b"".join(b"A%d: %b\r\n" % (n, b"x" * 600) for n in range(90))
        client.sendall(b"POST /?" + b"q" * 8000 + LINE[5:] + headers)
        client.sendall(b"Content-Length: 300000\r\n\r\n" + b"x" * 299_999)
        time.sleep(2 * SECONDS)
        client.sendall(b"x")
        assert b"300000" in client.recv(MIB)
        client.sendall(LINE + b"\r\n" + LINE + b"Connection: close\r\n\r\n")
        status, body = reply(client)
        assert (status, body) == (200, b"0")


def test_an_invalid_request_gets_a_problem(connect: Callable[[], socket.socket]) -> None:
    with connect() as client:
        client.sendall(b"nonsense\r\n\r\n")
        status, body = reply(client)
        assert (status, json.loads(body)["code"]) == (400, "invalid-request")
