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
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
from tqdm import tqdm

from bench.attacks import watch
from bench.attacks.attacks import Attack, single
from bench.before import code_of
from bench.machine import describe
from bench.output import RESULTS, save
from harness.images import png
from harness.models import DEFAULT
from harness.server import Server

SECONDS = 40.0
IDLE_SHARE = 0.2  # of one processor: what an idle service takes, at most
LOOK_SECONDS = 0.25
MIB = 2**20


class SteadySearcher:
    """Searches in a thread. ``statuses``: replies by status; ``slowest``: of the 200s, in
    seconds."""

    def __init__(self, url: str) -> None:
        self.statuses: Counter[str] = Counter()
        self.slowest = 0.0
        self._url, self._done = url, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "SteadySearcher":
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


def measure(run: Callable[[Attack], None], root: Path | None, memory: int) -> dict[str, object]:
    """Starts a service, attacks it, and returns what was measured."""
    with tempfile.TemporaryDirectory() as folder, code_of(root):
        server = Server(Path(folder), model=DEFAULT)
        server.start()
        assert server.process is not None
        if memory:
            watch.confine(server.process.pid, memory)
        server.wait_until_ready()
        server.index(png(0), ids='["good"]')
        server.search(png(0))
        before = watch.processor_time(server)
        with watch.Peak(server) as peak, SteadySearcher(server.url) as client:
            time.sleep(1)
            began = time.monotonic()
            with Attack(server, SECONDS) as attack:
                with suppress(OSError):  # the service closed a connection
                    run(attack)
                took = time.monotonic() - began
            # The good client's searches take some of the processor.
            idle = watch.until_idle(server, IDLE_SHARE, SECONDS)
            seconds = watch.processor_time(server) - before
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
        "peak_mb": round(peak.bytes / MIB),
        "good_client": dict(client.statuses),
        "good_client_slowest_s": round(client.slowest, 2),
        "idle_after_s": None if idle is None else round(idle, 1),
        "stop_s": round(stop, 1),
        "survived": alive,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout, with its extension built")
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    parser.add_argument("--memory", type=int, default=0, help="bytes of the control group")
    parser.add_argument("--out", type=Path, default=RESULTS / "attacks.json")
    options = parser.parse_args()
    attacks = single()
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
