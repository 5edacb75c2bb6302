"""Measures how far the indexes of three replicas lag behind their database under writes to all.

    python -m bench.replicas                  # Postgres, 30 s
    python -m bench.replicas --seconds 5 --database sqlite

Writers put images through every replica. A watcher takes images that one replica has acknowledged,
and searches for each of them once in the other replicas. Samplers read the lag of the index in
memory from GET /stats. At the end the checksums of all indexes must be equal.
"""

import argparse
import json
import queue
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx

from bench.database import sqlite_url
from bench.machine import describe
from bench.output import RESULTS, save
from harness.images import png
from harness.models import make_artifact
from harness.postgres import Postgres
from harness.server import Server

PROCESSES = 3
WRITERS = 2  # per replica
IDS = 150  # per writer, so that a search can return all images
SAMPLE_SECONDS = 0.05


class ReplicaTraffic:
    """Writers, watcher and samplers, which run for ``seconds``."""

    def __init__(self, servers: list[Server], seconds: float) -> None:
        self.servers, self.deadline = servers, time.monotonic() + seconds
        self.acknowledged: queue.Queue[tuple[int, str, int]] = queue.Queue(maxsize=1)
        self.writes = 0
        self.searched = 0  # searches for an acknowledged image in another replica
        self.missed = 0  # how many of these searches did not find the image
        self.lags: list[float] = []
        self.behind: list[int] = []

    def run(self) -> dict[str, object]:
        """Runs the traffic, waits until all replicas have the same changes, and returns results."""
        jobs = [(self._write, (n, w)) for n in range(PROCESSES) for w in range(WRITERS)]
        jobs += [(self._sample, (n,)) for n in range(PROCESSES)] + [(self._watch, ())]
        threads = [threading.Thread(target=target, args=args) for target, args in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = time.monotonic()
        while len({s.http.get("/stats").json()["feed"]["applied"] for s in self.servers}) > 1:
            time.sleep(0.01)
        settled = time.monotonic() - ended
        checks = [s.http.get("/stats", params={"checksum": True}).json() for s in self.servers]
        sums = {c["checksum"][side] for c in checks for side in ("memory", "database")}
        return {
            "processes": PROCESSES,
            "writes": self.writes,
            "images": checks[0]["images"],
            "searches_elsewhere": self.searched,
            "searches_elsewhere_that_missed": self.missed,
            "lag_of_memory_s": _spread(self.lags),
            "changes_behind_at_worst": max(self.behind),
            "settled_after_s": round(settled, 3),
            "all_equal_in_the_end": len(sums) == 1,
        }

    def _write(self, process: int, writer: int) -> None:
        turn = 0
        with httpx.Client(base_url=self.servers[process].url, timeout=60) as http:
            while time.monotonic() < self.deadline:
                turn += 1
                id = f"p{process}-{writer}-{turn % IDS}"
                seed = (process * WRITERS + writer) * 10**6 + turn
                form = {"ids": json.dumps([id])}
                http.post("/index", files={"images": png(seed)}, data=form).raise_for_status()
                self.writes += 1
                with suppress(queue.Full):
                    self.acknowledged.put_nowait((process, id, seed))

    def _watch(self) -> None:
        with ExitStack() as stack:
            clients = [
                stack.enter_context(httpx.Client(base_url=s.url, timeout=60)) for s in self.servers
            ]
            while time.monotonic() < self.deadline:
                try:
                    process, id, seed = self.acknowledged.get(timeout=0.1)
                except queue.Empty:
                    continue
                for other in set(range(PROCESSES)) - {process}:
                    form = {"files": {"image": png(seed)}, "data": {"k": 1000}}
                    hits = clients[other].post("/search", **form).json()["results"]
                    self.searched += 1
                    self.missed += id not in {hit["id"] for hit in hits}

    def _sample(self, process: int) -> None:
        with httpx.Client(base_url=self.servers[process].url, timeout=60) as http:
            while time.monotonic() < self.deadline:
                feed = http.get("/stats").json()["feed"]
                self.lags.append(feed["lag_s"])
                self.behind.append(feed["head"] - feed["applied"])
                time.sleep(SAMPLE_SECONDS)


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 4),
        "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 4),
        "worst": round(ordered[-1], 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30, help="length of the traffic")
    parser.add_argument("--database", choices=["postgres", "sqlite"], default="postgres")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_artifact(root / "model")
        url = sqlite_url(root)
        if arguments.database == "postgres":
            url = stack.enter_context(Postgres()).create_database()
        servers = []
        for n in range(PROCESSES):
            (root / str(n)).mkdir()
            settings = {"model": root / "model", "image_store": root / "images"}
            server = Server(root / str(n), database_url=url, **settings)
            servers.append(stack.enter_context(server))
        result = {"database": arguments.database, "machine": describe()}
        result |= ReplicaTraffic(servers, arguments.seconds).run()
    whole = arguments.database == "postgres" and arguments.seconds >= 30
    save(result, RESULTS / "replicas.json" if whole else None, indent=2)


if __name__ == "__main__":
    main()
