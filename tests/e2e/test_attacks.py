"""Tests that hostile images and clients cost the service little, whatever they send."""

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from harness import hostile
from harness.images import png
from harness.processes import children, processor_seconds
from harness.server import Server
from tests.e2e.test_hostile import assert_problem

SLOW = hostile.black_png()  # of 12 KB; decoding it takes about half a second


@pytest.fixture(scope="module")
def server(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("attacks")
    with Server(folder, model=random_model, decode_threads=2) as running:
        running.index(png(0), ids='["good"]')
        yield running


def form(files: list[bytes]) -> tuple[bytes, bytes]:
    """Returns the head and the body of a POST /index."""
    request = httpx.Request(
        "POST", "http://localhost/index", files=[("images", ("x", data)) for data in files]
    )
    body = request.read()
    head = (
        f"POST /index HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: {request.headers['content-type']}\r\n\r\n"
    )
    return head.encode(), body


def connect(server: Server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


@contextmanager
def connections_to(server: Server, number: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connect(server)) for _ in range(number)]


def reply_on(connection: socket.socket) -> bytes:
    """Returns all bytes until the service closes the connection."""
    return b"".join(iter(lambda: connection.recv(4096), b""))


def family_seconds(server: Server) -> float:
    assert server.process is not None
    every = [server.process.pid, *children(server.process.pid)]
    return sum(map(processor_seconds, every))


def seconds_of_search(server: Server) -> float:
    began = time.monotonic()
    assert server.search(png(0)).json()["results"][0]["id"] == "good"
    return time.monotonic() - began


def test_a_thousand_small_costly_files_are_refused_quickly(server: Server) -> None:
    began = time.monotonic()
    body = assert_problem(server.index(*[hostile.bmp_runs(8)] * 1000), 422, "all-failed")
    assert time.monotonic() - began < 20  # one took eleven seconds, by itself
    assert "run-length" in body["detail"]


def test_the_work_of_a_client_that_is_gone_is_dropped(server: Server) -> None:
    head, body = form([SLOW] * 400)
    with connect(server) as connection:
        connection.sendall(head + body)
        time.sleep(1)
    assert seconds_of_search(server) < 5  # the images would take minutes
    time.sleep(1)
    before = family_seconds(server)
    time.sleep(2)
    assert family_seconds(server) - before < 0.5


def test_a_search_whose_client_is_gone_is_dropped(server: Server) -> None:
    request = httpx.Request("POST", "http://localhost/search", files={"image": ("x", SLOW)})
    body = request.read()
    head = (
        f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: {request.headers['content-type']}\r\n\r\n"
    ).encode()
    for _ in range(60):
        with connect(server) as connection:
            connection.sendall(head + body)
    assert seconds_of_search(server) < 8  # the images would take half a minute


def test_a_stop_does_not_wait_for_hostile_images(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model) as server:
        head, body = form([SLOW] * 400)
        with connect(server) as connection:
            connection.sendall(head + body)
            time.sleep(1)
        began = time.monotonic()
    assert time.monotonic() - began < 10


def test_a_killed_decoder_costs_no_request(server: Server) -> None:
    assert server.process is not None
    for process in children(server.process.pid):
        os.kill(process, signal.SIGKILL)
    for _ in range(4):
        assert seconds_of_search(server) < 10


def test_an_image_over_its_time_is_refused(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model, decode_seconds=0.1) as server:
        server.index(png(0), ids='["good"]')
        body = assert_problem(server.search(SLOW), 413, "decode-limit")
        assert "0.1 seconds" in body["detail"]
        items = server.index(SLOW, png(1)).json()["items"]
        assert [item["status"] for item in items] == ["failed", "created"]
        assert seconds_of_search(server) < 10


def test_a_request_is_refused_the_time_of_too_many_images(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, request_seconds=0.5) as server:
        items = server.index(*[SLOW] * 40, png(1)).json()["items"]
        codes = [item["error"]["code"] for item in items if item["status"] == "failed"]
        assert codes and set(codes) == {"decode-limit"}
        assert "GPQ_REQUEST_SECONDS" in items[-1]["error"]["detail"]


def test_bodies_that_never_end_lose_their_places(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model, max_waiting=8) as server:
        server.index(png(0), ids='["good"]')
        head, _ = form([png(1)])
        with connections_to(server, 8) as connections:
            for connection in connections:
                connection.sendall(head)
            time.sleep(0.5)
            assert_problem(server.search(png(0)), 429, "busy")
            time.sleep(5.5)  # until another request may take the place of a slow body
            for _ in range(5):
                assert seconds_of_search(server) < 5
            ended, _, _ = select.select(connections, [], [], 10)
            reply = reply_on(ended[0])
        assert reply.startswith(b"HTTP/1.1 408") and b"slow-body" in reply


def test_half_open_forms_have_little_text_in_memory(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model) as server:
        field = b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
        head = (
            b"POST /index HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        before = server.rss()
        with connections_to(server, 20) as connections:
            for connection in connections:
                with suppress(OSError):  # refused, and closed
                    connection.sendall(head + field + bytes(17 * 2**20))
            time.sleep(1)
            assert server.rss() - before < 400 * 2**20
        time.sleep(1)
        reply = server.index(png(1), metadata='[{"a": 1}]')  # the room is free again
        assert reply.status_code == 200


def test_unfinished_requests_leave_room_for_others(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model) as server:
        server.index(png(0), ids='["good"]')
        with connections_to(server, 1100) as connections:
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(b"GET /stats HTTP/1.1\r\n")
            assert seconds_of_search(server) < 5
            assert server.http.get("/stats").status_code == 200


def test_large_images_do_not_keep_small_ones_waiting(random_model: Path, tmp_path: Path) -> None:
    large = hostile.transparent_png(9_000)
    with Server(tmp_path, model=random_model, decode_threads=2) as server:
        server.index(png(0), ids='["good"]')
        with ThreadPoolExecutor(8) as pool:
            replies = [pool.submit(server.search, large) for _ in range(8)]
            time.sleep(1)
            slowest = max(seconds_of_search(server) for _ in range(10))
            assert not all(reply.done() for reply in replies)
            assert {reply.result().status_code for reply in replies} == {200}
    assert slowest < 4  # eight large ones take ten seconds
