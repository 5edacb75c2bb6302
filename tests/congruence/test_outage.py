"""Tests with a Postgres that stops, hangs or starts late, and with full disks."""

import json
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from harness.images import encoded, noise, png
from harness.postgres import Postgres, binaries
from harness.server import Server
from service.runtime import RETRY_SECONDS

OUTAGE_SECONDS = 4
RECOVERY_SECONDS = 30


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A Postgres server that the test may stop."""
    if binaries() is None:
        pytest.skip("Postgres is not installed")
    with Postgres() as server:
        yield server


class Traffic:
    """Runs clients that store, delete and search, and records acknowledged writes.

    ``stored``: the seed of each stored image, by id. ``unsure``: ids whose last write was not
    acknowledged.
    """

    def __init__(self, url: str, clients: int) -> None:
        self.url = url
        self.stop = threading.Event()
        self.replies: list[httpx.Response] = []
        self.stored: dict[str, int] = {}
        self.unsure: set[str] = set()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        turn = 0
        with httpx.Client(base_url=self.url, timeout=60) as http:
            while not self.stop.is_set():
                turn += 1
                id, seed = f"t{number}-{turn}", number * 10_000 + turn
                self.unsure.add(id)
                form = {"ids": json.dumps([id])}
                put = http.post("/index", files={"images": png(seed)}, data=form)
                if put.status_code == 200:
                    self.stored[id] = seed
                    self.unsure.discard(id)
                search = http.post("/search", files={"image": png(seed)}, data={"k": 1000})
                self.replies += [put, search, http.get("/readyz")]
                if put.status_code == search.status_code == 200:
                    assert id in {hit["id"] for hit in search.json()["results"]} or turn > 900
                if put.status_code == 200 and turn % 5 == 0:
                    self.unsure.add(id)
                    deleted = http.delete(f"/images/{id}")
                    self.replies.append(deleted)
                    if deleted.status_code == 204:
                        del self.stored[id]
                        self.unsure.discard(id)
                time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_service_survives_a_restart_of_postgres_under_traffic(
    how: signal.Signals, own_postgres: Postgres, random_model: Path, tmp_path: Path
) -> None:
    url = own_postgres.create_database()
    with Server(tmp_path, model=random_model, database_url=url) as server:
        with Traffic(server.url, 6) as traffic:
            time.sleep(1.5)
            own_postgres.stop(how)
            down_at = len(traffic.replies)
            time.sleep(OUTAGE_SECONDS)
            assert server.http.get("/livez").status_code == 200
            ready = server.http.get("/readyz")
            assert ready.status_code == 503
            assert "database" in ready.json()["detail"]
            down = len(traffic.replies)
            own_postgres.start()
            deadline = time.monotonic() + RECOVERY_SECONDS
            while server.http.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(1.5)
        assert {reply.status_code for reply in traffic.replies} <= {200, 204, 404, 503}
        refused = [reply for reply in traffic.replies if reply.status_code == 503]
        assert len(refused) > 10
        for reply in refused:
            assert reply.headers["retry-after"] == "1"
            assert reply.headers["content-type"] == "application/problem+json"
            assert reply.json()["code"] == "unavailable"
        assert 200 in {reply.status_code for reply in traffic.replies[:down_at]}
        assert 200 in {reply.status_code for reply in traffic.replies[down:]}
        listed, cursor = set(), "0"
        while cursor is not None:
            page = server.http.get("/images", params={"limit": 1000, "cursor": cursor}).json()
            listed |= {image["id"] for image in page["images"]}
            cursor = page["next_cursor"]
        assert set(traffic.stored) - traffic.unsure <= listed
        assert listed <= set(traffic.stored) | traffic.unsure
        stats = server.http.get("/stats", params={"checksum": True}).json()
        assert stats["checksum"]["memory"] == stats["checksum"]["database"]


def test_a_service_waits_for_a_database_that_starts_late(
    own_postgres: Postgres, random_model: Path, tmp_path: Path
) -> None:
    url = own_postgres.create_database()
    own_postgres.stop()
    server = Server(tmp_path, model=random_model, database_url=url)
    server.start()
    server.wait_until_not_ready("does not answer")
    time.sleep(2 * RETRY_SECONDS)
    own_postgres.start()
    server.wait_until_ready()
    assert server.printed().count("the database does not answer") == 1
    assert server.index(png(1)).status_code == 200
    assert server.stop() == 0


def test_a_postgres_that_stops_answering_makes_the_service_unavailable(
    own_postgres: Postgres, random_model: Path, tmp_path: Path
) -> None:
    """Its processes are stopped and its connections stay open, so that no call fails or returns."""
    url = own_postgres.create_database()
    server = Server(tmp_path, model=random_model, database_url=url)
    server.start()
    server.wait_until_ready()
    server.index(png(1), ids='["kept"]')
    with ThreadPoolExecutor(60) as pool:
        own_postgres.signal_all(signal.SIGSTOP)
        try:
            waiting = [pool.submit(httpx.get, f"{server.url}/images", timeout=120)
                       for _ in range(45)]  # fmt: skip
            deadline = time.monotonic() + 60
            while (ready := server.http.get("/readyz")).status_code == 200:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert "database" in ready.json()["detail"]
            started = time.monotonic()
            assert server.http.get("/nothing").status_code == 404
            assert server.search(png(1)).status_code == 503
            assert server.http.get("/images").status_code == 503
            assert time.monotonic() - started < 3
        finally:
            own_postgres.signal_all(signal.SIGCONT)
        assert {done.result().status_code for done in waiting} <= {200, 503}
    deadline = time.monotonic() + RECOVERY_SECONDS
    while server.http.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.search(png(1)).json()["results"][0]["id"] == "kept"
    own_postgres.signal_all(signal.SIGSTOP)
    try:
        time.sleep(1)  # the follower polls twice a second, so it hangs now
        started = time.monotonic()
        assert server.stop() in (0, 1)
        assert time.monotonic() - started < 45
    finally:
        own_postgres.signal_all(signal.SIGCONT)


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """Mounts a small file system in memory; needs root, which CI has."""
    folder = Path(tempfile.mkdtemp(prefix="gpq-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=777", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"cannot mount a small disk: {done.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill(server: Server, size: tuple[int, int]) -> tuple[list[int], httpx.Response]:
    """Stores random images until a reply is not 200; returns their seeds and that reply."""
    kept = []
    for seed in range(10_000):
        reply = server.index(encoded(noise(seed, size)), ids=f'["f{seed}"]')
        if reply.status_code != 200:
            return kept, reply
        kept.append(seed)
    raise AssertionError("the disk is not full")


def assert_full_and_intact(
    server: Server, kept: list[int], reply: httpx.Response, size: tuple[int, int]
) -> None:
    assert reply.status_code == 507, reply.text
    assert reply.json()["code"] == "disk-full"
    assert len(kept) > 2
    listed = server.http.get("/images", params={"limit": 1000}).json()["images"]
    assert {image["id"] for image in listed} == {f"f{seed}" for seed in kept}
    for seed in kept[:: max(1, len(kept) // 20)]:
        hits = server.search(encoded(noise(seed, size)), k=1000).json()["results"]
        assert f"f{seed}" in {hit["id"] for hit in hits}
    checksum = server.http.get("/stats", params={"checksum": True}).json()["checksum"]
    assert checksum["memory"] == checksum["database"]


def test_a_full_disk_of_originals_refuses_writes_and_loses_nothing(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    size = (300, 300)
    with small_disk(4) as disk:
        settings = {"model": random_model, "database_url": database_url}
        with Server(tmp_path, image_store=disk / "images", **settings) as server:
            kept, reply = fill(server, size)
            assert_full_and_intact(server, kept, reply, size)
            files = [p for p in (disk / "images").glob("??/*") if p.is_file()]
            assert len(files) == len(kept)  # no half-written file stays
            assert server.http.get(f"/images/f{kept[0]}/content").status_code == 200
            for path in files[:3]:
                path.unlink()
            assert server.index(png(1)).status_code == 200


def test_a_full_disk_of_sqlite_refuses_writes_and_loses_nothing(
    random_model: Path, tmp_path: Path
) -> None:
    size = (8, 8)
    with small_disk(2) as disk:
        url = f"sqlite:///{disk}/gpq.db"
        ballast = disk / "ballast"
        with Server(tmp_path, model=random_model, database_url=url) as server:
            ballast.write_bytes(b"x" * 1_500_000)
            kept, reply = fill(server, size)
            assert_full_and_intact(server, kept, reply, size)
            ballast.unlink()
            assert server.index(png(1)).status_code == 200
            assert len(server.http.get("/images").json()["images"]) >= 1


def test_a_full_disk_of_postgres_refuses_writes_and_loses_nothing(
    own_postgres: Postgres, random_model: Path, tmp_path: Path
) -> None:
    size = (8, 8)
    with small_disk(20) as disk:
        url = own_postgres.create_database(tablespace=disk)
        ballast = disk / "ballast"
        with Server(tmp_path, model=random_model, database_url=url) as server:
            left = int(subprocess.check_output(["df", "--output=avail", "-B1", disk]).split()[1])
            ballast.write_bytes(b"x" * (left - 200_000))
            kept, reply = fill(server, size)
            assert_full_and_intact(server, kept, reply, size)
            ballast.unlink()
            assert server.index(png(1)).status_code == 200
    with psycopg.connect(own_postgres._conninfo("postgres"), autocommit=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
