"""Attacks a service, and measures what that costs and what a good client sees meanwhile.

    python -m bench.attacks                          about 10 minutes
    python -m bench.attacks --before /tmp/before     also the service of another checkout

Each attack begins with a new service with default settings; after SECONDS, or when it has its
replies, its clients go. A good client searches four times a second with a small image, from before
the attack until the service is idle. The results have, for each attack: how long it took, the
processor time and the largest memory of the service with its processes, the replies to the good
client, its slowest answer, and how long the service went on after the attack. With --memory the
service runs in a control group with so many bytes (as root, with cgroup v1 or v2). Results are
written to bench/results/attacks.json.
"""

import argparse
import os
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
from tqdm import tqdm

from bench.before import code_of
from bench.machine import describe
from bench.output import RESULTS, save
from harness import hostile
from harness.images import png
from harness.models import DEFAULT
from harness.processes import children, processor_seconds
from harness.server import Server

SECONDS = 40.0
IDLE_SHARE = 0.2  # of one processor: what an idle service takes, at most
LOOK_SECONDS = 0.25
MIB = 2**20
GROUPS = Path("/sys/fs/cgroup")


class GoodClient:
    """Searches in a thread. ``statuses``: replies by status; ``slowest``: of the 200s, in
    seconds."""

    def __init__(self, url: str) -> None:
        self.statuses: Counter[str] = Counter()
        self.slowest = 0.0
        self._url, self._done = url, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "GoodClient":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            began = time.monotonic()
            try:
                files = {"image": ("x", png(0))}
                status = str(httpx.post(f"{self._url}/search", files=files, timeout=90).status_code)
            except httpx.HTTPError as error:
                status = type(error).__name__
            self.statuses[status] += 1
            if status == "200":
                self.slowest = max(self.slowest, time.monotonic() - began)


class Attack:
    """The connections of an attacker, which are closed when it ends."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._stack = ExitStack()

    def __enter__(self) -> "Attack":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def connect(self, timeout: float = SECONDS) -> socket.socket:
        host, _, port = self.server.url.removeprefix("http://").partition(":")
        return self._stack.enter_context(socket.create_connection((host, int(port)), timeout))

    def post(self, path: str, files: list[tuple[str, bytes]]) -> bytes:
        """Returns the bytes of a request with a form."""
        form = [(name, ("x", data)) for name, data in files]
        request = httpx.Request("POST", f"{self.server.url}{path}", files=form)
        body = request.read()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Content-Type: {request.headers['content-type']}\r\n\r\n"
        return head.encode() + body


def one_file(data: bytes) -> Callable[[Attack], None]:
    """The file is sent to POST /index, and the reply is awaited."""

    def run(attack: Attack) -> None:
        with attack.connect() as connection, suppress(TimeoutError):
            connection.sendall(attack.post("/index", [("images", data)]))
            connection.recv(1)

    return run


def hang_up(attack: Attack) -> None:
    """1,000 BMPs, and the client goes after a second."""
    with attack.connect() as connection:
        connection.sendall(attack.post("/index", [("images", hostile.bmp_runs(8))] * 1000))
        time.sleep(1)


def many_large(attack: Attack) -> None:
    """Eight clients send images of 100 megapixels with transparency."""
    request = attack.post("/search", [("image", hostile.transparent_png())])
    connections = [attack.connect() for _ in range(8)]
    for connection in connections:
        connection.sendall(request)
    for connection in connections:
        with suppress(OSError):
            connection.recv(1)


def unfinished(attack: Attack) -> None:
    """1,100 requests without an end of their headers."""
    for _ in range(1100):
        with suppress(OSError):
            attack.connect().sendall(b"GET /stats HTTP/1.1\r\n")
    time.sleep(SECONDS)


def half_open(attack: Attack) -> None:
    """64 bodies that do not come."""
    head = attack.post("/index", [("images", b"x" * 1000)]).partition(b"\r\n\r\n")[0]
    for _ in range(64):
        attack.connect().sendall(head + b"\r\n\r\n")
    time.sleep(SECONDS)


def half_open_text(attack: Attack) -> None:
    """20 forms with four text fields of 17 MiB and no end."""
    head = b"POST /index HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    for _ in range(20):
        with suppress(OSError):
            connection = attack.connect()
            connection.sendall(head)
            for name in (b"ids", b"metadata", b"model", b"more"):
                part = b'\r\n--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n'
                connection.sendall(part + bytes(17 * MIB))
    time.sleep(10)


def unread(attack: Attack) -> None:
    """100 clients ask for a page of images with much metadata, and read nothing."""
    metadata = '[{"a": "' + "x" * 15_000 + '"}]'
    for n in range(1000):
        attack.server.index(png(n), ids=f'["m{n}"]', metadata=metadata)
    for _ in range(100):
        with suppress(OSError):
            attack.connect().sendall(b"GET /images?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(SECONDS)


def long_header(attack: Attack) -> None:
    """200 MiB of one header."""
    with attack.connect() as connection, suppress(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ")
        for _ in range(200):
            connection.sendall(b"x" * MIB)


CLIENTS: dict[str, Callable[[Attack], None]] = {
    "1,000 BMPs, client hangs up": hang_up,
    "8 × 100 megapixels with transparency": many_large,
    "1,100 unfinished requests": unfinished,
    "64 half-open bodies": half_open,
    "20 half-open forms of text": half_open_text,
    "100 unread replies": unread,
    "200 MiB of one header": long_header,
}


def measure(run: Callable[[Attack], None], root: Path | None, memory: int) -> dict[str, object]:
    """Starts a service, attacks it, and returns what was measured."""
    with tempfile.TemporaryDirectory() as folder, code_of(root):
        server = Server(Path(folder), model=DEFAULT)
        server.start()
        assert server.process is not None
        if memory:
            _confine(server.process.pid, memory)
        server.wait_until_ready()
        server.index(png(0), ids='["good"]')
        server.search(png(0))
        before = _cpu(server)
        watched = _Peak(server)
        with watched, GoodClient(server.url) as client:
            time.sleep(1)
            began = time.monotonic()
            with Attack(server) as attack:
                with suppress(OSError):  # the service closed a connection
                    run(attack)
                took = time.monotonic() - began
            ended = time.monotonic()
            idle = _until_idle(server, ended)
            seconds = _cpu(server) - before
        alive = server.process.poll() is None
        began = time.monotonic()
        server.http.close()
        server.process.terminate()
        with suppress(Exception):
            server.process.wait(90)
        stop = time.monotonic() - began
        server.process.kill()
    return {
        "attack_s": round(took, 1),
        "cpu_s": round(seconds, 1),
        "peak_mb": round(watched.peak / MIB),
        "good_client": dict(client.statuses),
        "good_client_slowest_s": round(client.slowest, 2),
        "idle_after_s": None if idle is None else round(idle, 1),
        "stop_s": round(stop, 1),
        "survived": alive,
    }


class _Peak:
    """Watches the memory of a service with its processes, ten times a second."""

    def __init__(self, server: Server) -> None:
        self.server, self.peak, self._done = server, 0, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.1):
            with suppress(OSError):
                self.peak = max(self.peak, self.server.rss())


def _cpu(server: Server) -> float:
    assert server.process is not None
    total = 0.0
    for process in (server.process.pid, *children(server.process.pid)):
        with suppress(OSError):
            total += processor_seconds(process)
    return total


def _until_idle(server: Server, since: float) -> float | None:
    """Returns the seconds until the service takes little processor time; None if it never does."""
    quiet = 0
    while time.monotonic() - since < SECONDS:
        before, began = _cpu(server), time.monotonic()
        time.sleep(1)
        # The good client's searches take some of it.
        share = (_cpu(server) - before) / (time.monotonic() - began)
        quiet = quiet + 1 if share < IDLE_SHARE else 0
        if quiet == 2:
            return max(0.0, time.monotonic() - since - 2)
    return None


def _confine(process: int, memory: int) -> None:
    if (GROUPS / "memory").is_dir():
        group, limit = GROUPS / "memory" / "gpq-attacks", "memory.limit_in_bytes"
    else:
        group, limit = GROUPS / "gpq-attacks", "memory.max"
    group.mkdir(exist_ok=True)
    (group / limit).write_text(str(memory))
    (group / "cgroup.procs").write_text(str(process))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout, with its extension built")
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    parser.add_argument("--memory", type=int, default=0, help="bytes of the control group")
    parser.add_argument("--out", type=Path, default=RESULTS / "attacks.json")
    options = parser.parse_args()
    attacks = {name: one_file(make()) for name, make in hostile.FILES.items()} | CLIENTS
    roots = {"now": None} | ({"before": options.before.resolve()} if options.before else {})
    found: dict[str, dict[str, object]] = {}
    for name in tqdm([name for name in attacks if options.only in name]):
        found[name] = {
            which: measure(attacks[name], root, options.memory) for which, root in roots.items()
        }
        print(name, found[name], flush=True)
    results = {"machine": describe(), "processors": os.cpu_count(), "attacks": found}
    save({**results, "memory_limit": options.memory or None}, options.out)


if __name__ == "__main__":
    main()
