"""Sends twice as many searches as the service can answer, and checks its replies and memory.

    python -m bench.overload                     ten minutes, after measuring the capacity
    python -m bench.overload --seconds 30 --rows 1000

The searches send a 32×32 JPEG on 200 connections from the same machine. Five times a second,
another client searches with one of ten images, and compares the hits with its hits from before
the overload. The growth of memory is counted after the first tenth of the time. Results are
written to bench/results/overload.json.
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
    """Searches in a thread and compares the hits with hits from before the thread started.

    ``answered``, ``refused``, ``wrong``: numbers of replies; refused ones have the status 429.
    """

    def __init__(self, server: Server, images: list[bytes]) -> None:
        self.server = server
        self.answered = self.refused = self.wrong = 0
        self.expected = [(each, self._search(each).json()["results"]) for each in images]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Checker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _search(self, image: bytes) -> httpx.Response:
        return self.server.search(image, k=10)

    def _run(self) -> None:
        for image, expected in cycle(self.expected):
            if self._done.wait(0.2):
                break
            reply = self._search(image)
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
    """Sends searches at twice the capacity for ``seconds``, and returns the measurements.

    ``checked``: the images that the other client searches with.
    """
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
    parser.add_argument("--rows", type=int, default=100_000, help="number of stored images")
    parser.add_argument("--seconds", type=float, default=600, help="length of the overload")
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
            checked = [path.read_bytes() for path in sorted(EXAMPLES.glob("*/0000.jpg"))]
            found = overload(server, file, checked, capacity, options.seconds)
    results = {"machine": describe(), "rows": options.rows, "capacity": capacity, **found}
    save(results, RESULTS / "overload.json")


if __name__ == "__main__":
    main()
