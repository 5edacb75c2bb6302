"""Tests of several real processes that serve and write one database."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.images import png
from harness.server import Server
from service.database.store import Store
from tests.waiting import until

PROCESSES = 3


@pytest.fixture
def servers(random_model: Path, database_url: str, tmp_path: Path) -> Iterator[list[Server]]:
    """Services that start at once on an empty database and share the originals."""
    settings = {"model": random_model, "database_url": database_url, "image_store": tmp_path / "o"}
    folders = [tmp_path / str(n) for n in range(PROCESSES)]
    for folder in folders:
        folder.mkdir()
    started = [Server(folder, **settings) for folder in folders]
    with ExitStack() as stack:
        for server in started:
            server.start()
            stack.push(server.__exit__)
        for server in started:
            server.wait_until_ready()
        yield started


def feed(server: Server) -> dict:
    return server.http.get("/stats").json()["feed"]


def found(server: Server, seed: int) -> set[str]:
    return {hit["id"] for hit in server.search(png(seed), k=1000).json()["results"]}


def test_all_replicas_serve_and_write_at_once(servers: list[Server]) -> None:
    errors: list[str] = []

    def write(number: int) -> None:
        server = servers[number]
        for turn in range(40):
            mine, shared, seed = f"s{number}-{turn}", f"shared-{turn % 5}", number * 1000 + turn
            reply = server.index(png(seed), png(seed + 500), ids=json.dumps([mine, shared]))
            if reply.status_code != 200:
                errors.append(reply.text)
            elif mine not in found(server, seed):
                errors.append(f"{mine} is not found in the process that stored it")
            elif mine not in found(servers[(number + 1) % PROCESSES], seed):
                errors.append(f"{mine} is not found in another process")
            if turn % 4 == 0 and server.http.delete(f"/images/{mine}").status_code != 204:
                errors.append(f"{mine} could not be deleted")

    writers = [threading.Thread(target=write, args=(number,)) for number in range(PROCESSES)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    head = feed(servers[0])["head"]
    assert head == PROCESSES * (40 + 40 + 10)
    until(lambda: all(feed(server)["applied"] == head for server in servers))
    assert all(feed(server)["lag_s"] == 0 for server in servers)
    results = [server.search(png(1), k=1000).json()["results"] for server in servers]
    assert len(results[0]) == PROCESSES * 30 + 5
    assert results[0] == results[1] == results[2]
    sums = [server.http.get("/stats?checksum=true").json()["checksum"] for server in servers]
    assert len({entry[side] for entry in sums for side in ("memory", "database")}) == 1


def test_wait_all_waits_for_living_replicas_only(servers: list[Server], database_url: str) -> None:
    first, stalled, third = servers
    until(lambda: len(feed(first)["replicas"]) == PROCESSES)
    reply = first.http.post("/index", files={"images": png(1)}, params={"wait": "all"})
    assert reply.status_code == 200
    head = feed(first)["head"]
    applied = {replica["applied"] for replica in feed(third)["replicas"]}
    assert applied == {head}

    stalled.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    reply = first.http.post("/index", files={"images": png(2)}, params={"wait": "all"})
    waited = time.monotonic() - started
    assert reply.status_code == 200  # sent once the heartbeat of the stalled process was 5 s old
    assert waited > 2
    stalled.process.send_signal(signal.SIGCONT)
    until(lambda: feed(stalled)["applied"] == feed(first)["head"])
    assert first.http.get("/images").json() == stalled.http.get("/images").json()


def test_wait_all_answers_202_if_a_living_replica_does_not_follow(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, database_url=database_url) as server:
        store, done = Store(database_url), threading.Event()

        def beat() -> None:
            while not done.wait(0.3):
                store.replicas.beat("slow", 0)

        store.replicas.beat("slow", 0)
        slow = threading.Thread(target=beat)
        slow.start()
        reply = server.http.post("/index", files={"images": png(1)}, params={"wait": "all"})
        done.set()
        slow.join()
        store.close()
        assert reply.status_code == 202
        assert reply.json()["items"][0]["status"] == "created"
        assert len(found(server, 1)) == 1


def test_a_killed_process_leaves_no_lock_behind(servers: list[Server]) -> None:
    stop = threading.Event()

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                servers[0].index(png(turn), ids=f'["k{turn}"]')
            except Exception:
                return

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.5)
    servers[0].kill()
    stop.set()
    writer.join()
    started = time.monotonic()
    assert servers[1].index(png(9999), ids='["after"]').status_code == 200
    assert time.monotonic() - started < 20
    assert "after" in found(servers[2], 9999)
    servers[0].start()  # the fixture stops it again
    servers[0].wait_until_ready()
    assert "after" in found(servers[0], 9999)
