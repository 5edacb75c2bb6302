"""Twice as many searches as the service can answer: what it does with them.

    python -m bench.overload                     ten minutes, after measuring what it can
    python -m bench.overload --seconds 30 --rows 1000

A 32×32 JPEG from 200 connections of autocannon (node), on the same machine. Beside them one client
searches now and then by a picture of ten, and compares its hits with those of the idle service. The
growth of memory is counted after the first tenth. Results go to bench/results/overload.json.
"""

import argparse
import statistics
import tempfile
import threading
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

from bench import load, photographs
from bench.database import filled_service
from bench.machine import describe
from bench.output import RESULTS, save
from harness.images import EXAMPLES
from harness.server import Server

ROUNDS, ROUND_SECONDS = 3, 5


class Checker:
    """Searches beside the load, whose hits must be those of the idle service."""

    def __init__(self, server: Server, pictures: list[bytes]) -> None:
        self.server = server
        self.answered = self.refused = self.wrong = 0
        self.expected = [(each, self._search(each).json()["results"]) for each in pictures]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Checker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _search(self, picture: bytes) -> httpx.Response:
        return self.server.search(picture, k=10)

    def _run(self) -> None:
        for picture, expected in cycle(self.expected):
            if self._done.wait(0.2):
                break
            reply = self._search(picture)
            if reply.status_code == 429:
                self.refused += 1
                continue
            found = reply.json().get("results", [])
            pairs = zip(found, expected, strict=False)
            near = [abs(a["score"] - b["score"]) < 1e-5 for a, b in pairs]
            self.answered += 1
            self.wrong += reply.status_code != 200 or len(near) != 10 or not all(near)


def overload(
    server: Server, file: Path, checked: list[bytes], capacity: float, seconds: float
) -> dict[str, Any]:
    """At twice the capacity: statuses, growth of memory after the first tenth, wrong answers."""
    url = f"{server.url}/search"
    with Checker(server, checked) as checker:
        load.run(url, file, seconds / 10, 200, 2 * capacity)
        before = server.rss()
        measured = load.run(url, file, seconds * 9 / 10, 200, 2 * capacity)
        after = server.rss()
    return {
        **asdict(measured),
        "rss_growth": round(after / before - 1, 4),
        "checked": {
            "answered": checker.answered, "refused": checker.refused, "wrong": checker.wrong,
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    load.require()
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "image.jpg"
        file.write_bytes(photographs.by_size()["32×32"])
        with filled_service(Path(name), options.rows) as server:
            alone = [
                load.run(f"{server.url}/search", file, ROUND_SECONDS, load.CONNECTIONS)
                for _ in range(ROUNDS)
            ]
            capacity = statistics.median(each.replies_a_second for each in alone)
            checked = [min(each.iterdir()).read_bytes() for each in sorted(EXAMPLES.iterdir())]
            found = overload(server, file, checked, capacity, options.seconds)
    results = {"machine": describe(), "rows": options.rows, "capacity": capacity, **found}
    save(results, RESULTS / "overload.json")


if __name__ == "__main__":
    main()
