"""Tests of the limits of connections and of replies that nobody reads, on real sockets."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.http.middleware import connection, reply_limit
from service.http.middleware.body_limit import BodyLimit
from service.http.middleware.reply_limit import ReplyLimit

MIB = 2**20
GET = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"

Connect = Callable[[], socket.socket]


async def bytes_of(request: Request) -> Response:
    return Response(bytes(int(request.path_params["size"])))


@pytest.fixture
def connect(serve: Callable, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Serves replies of any size, with short limits; returns a function that connects."""
    monkeypatch.setattr(connection, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(connection, "REPLY_SECONDS", 0.5)
    app = Starlette(routes=[Route("/{size}", bytes_of)])
    app.add_middleware(ReplyLimit)
    connected: Connect = serve(app)
    return connected


def received(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (part := client.recv(MIB)):
        data += part
    return data


def is_open(client: socket.socket) -> bool:
    client.settimeout(0.05)
    try:
        return client.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


@pytest.mark.parametrize("size", [0, 100, MIB, 40 * MIB])
def test_a_reply_of_any_size_arrives_whole(connect: Connect, size: int) -> None:
    with connect() as client:
        for _ in range(2):
            client.sendall(GET % size)
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(1)
            assert b"200 OK" in head and f"content-length: {size}\r\n".encode() in head
            assert received(client, size) == bytes(size)


def test_a_client_that_reads_nothing_loses_its_connection(connect: Connect) -> None:
    with connect() as client:
        client.sendall(GET % (40 * MIB))
        time.sleep(1.5)
        assert len(received(client, 40 * MIB)) < 40 * MIB


def test_a_client_that_reads_slowly_but_steadily_gets_everything(connect: Connect) -> None:
    with connect() as client:
        client.sendall(GET % (20 * MIB))
        data = 0
        for _ in range(15):  # for longer than a client that reads nothing would have
            data += len(received(client, MIB))
            time.sleep(0.1)
        while data < 20 * MIB:
            data += len(client.recv(MIB))


def test_a_client_that_reads_a_few_bytes_at_a_time_loses_its_connection(
    connect: Connect,
) -> None:
    with connect() as client:
        client.sendall(GET % (40 * MIB))
        for _ in range(15):
            assert client.recv(100)
            time.sleep(0.1)
        assert len(received(client, 40 * MIB)) < 39 * MIB


def test_a_new_connection_replaces_the_one_that_has_waited_longest(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 5)
    clients = []
    for _ in range(8):
        clients.append(connect())
        clients[-1].sendall(b"GET /1 HTTP/1.1\r\n")
        time.sleep(0.05)
    assert [is_open(client) for client in clients] == [False] * 3 + [True] * 5
    with connect() as client:
        client.sendall(GET % 5)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    for client in clients:
        client.close()


def test_a_connection_with_a_request_in_progress_is_not_replaced(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(connection, "REPLY_SECONDS", 30)
    busy = [connect() for _ in range(3)]
    for client in busy:
        client.sendall(GET % (40 * MIB))
    time.sleep(0.3)
    with connect() as client:
        assert not is_open(client)
    for client in busy:
        assert len(received(client, 40 * MIB)) >= 40 * MIB
        client.close()


def test_large_replies_that_nobody_reads_are_bounded(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_limit, "MOST_BYTES", 50 * MIB)
    with connect() as first, connect() as second:
        first.sendall(GET % (40 * MIB))
        time.sleep(0.2)
        second.sendall(GET % (20 * MIB))
        refused = second.recv(MIB)
        assert refused.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in refused.lower()
        second.sendall(GET % 1000)  # small ones are not affected
        assert second.recv(MIB).startswith(b"HTTP/1.1 200")
        assert len(received(first, 40 * MIB)) >= 40 * MIB
    with connect() as third:
        third.sendall(GET % (60 * MIB))  # larger than the limit, but alone
        assert len(received(third, 60 * MIB)) >= 60 * MIB


def test_replies_that_are_read_slowly_make_room_for_others(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_limit, "MOST_BYTES", 50 * MIB)
    monkeypatch.setattr(reply_limit, "REPLACED_SECONDS", 60)
    monkeypatch.setattr(connection, "REPLY_SECONDS", 60)
    with connect() as slow, connect() as slower, connect() as good:
        slow.sendall(GET % (20 * MIB))
        slower.sendall(GET % (20 * MIB))
        begin = received(slow, 8 * MIB)
        good.sendall(GET % (20 * MIB))
        assert good.recv(MIB).startswith(b"HTTP/1.1 503")  # for the slow ones still have time
        monkeypatch.setattr(reply_limit, "REPLACED_SECONDS", 0)
        monkeypatch.setattr(reply_limit, "REPLACED_BYTES_A_SECOND", 2**40)
        good.sendall(GET % (20 * MIB))
        assert len(received(good, 20 * MIB)) >= 20 * MIB
        with suppress(ConnectionResetError):
            assert len(received(slower, 20 * MIB)) < 20 * MIB
        rest = received(slow, 20 * MIB - len(begin))  # there is room for both
        assert len(begin) + len(rest) >= 20 * MIB


def test_a_body_that_nobody_wants_makes_room(
    serve: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    app = Starlette(routes=[Route("/{size}", bytes_of)])
    app.add_middleware(BodyLimit, max_bytes=MIB)
    connect = serve(app)
    lingering = [connect() for _ in range(3)]
    for client in lingering:
        client.sendall(b"GET /5 HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    with connect() as client:
        client.sendall(GET % 5)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    for client in lingering:
        client.close()
