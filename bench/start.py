"""Measures the start, memory and disk space of a service with a million stored images.

    python -m bench.start                          both databases, 1e6 rows, 3 starts each
    python -m bench.start --rows 10000             a small one, seconds
    python -m bench.start --rows 10000000 --only sqlite   5 GB of disk, 10 minutes to fill

The codes are uniformly random and have 48 bits. Postgres runs on a temporary folder of this
machine. The time of a start is from the start of the process until /readyz answers 200. It
includes loading Python, torch, the shipped model and its golden vectors, migrations, reading the
codes from the database or from GPQ_INDEX_FILE, and sorting them for the native engine.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.database import disk_bytes, fill, sqlite_url
from bench.machine import describe
from bench.output import RESULTS, save
from harness.models import SHIPPED
from harness.postgres import Postgres
from harness.server import Server


def measure(
    folder: Path, url: str, rows: int, starts: int, **settings: object
) -> dict[str, object]:
    """Starts and stops the service again and again; returns the times and the memory."""
    seconds, rss = [], []
    for _ in range(starts):
        server = Server(folder, model=SHIPPED, database_url=url, image_store="none", **settings)
        begun = time.monotonic()
        server.start()
        server.wait_until_ready()
        seconds.append(time.monotonic() - begun)
        assert server.http.get("/stats").json()["images"] == rows
        rss.append(server.rss())  # after GET /stats, which uses some memory too
        assert server.stop() == 0
    return {
        "rows": rows,
        "start_to_ready_s": {
            "median": round(statistics.median(seconds), 2),
            "all": [round(value, 2) for value in seconds],
        },
        "rss_mb": round(statistics.median(rss) / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of stored images")
    parser.add_argument("--starts", type=int, default=3, help="starts that are measured")
    parser.add_argument("--only", choices=("sqlite", "postgres"), help="(both)")
    arguments = parser.parse_args()
    results: dict[str, object] = {"machine": describe()}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        empty = f"sqlite:///{folder}/empty.db"
        fill(empty, 0)
        results["empty"] = measure(folder, empty, 0, arguments.starts)
        urls = {}
        if arguments.only != "postgres":
            urls["sqlite"] = sqlite_url(folder)
        if arguments.only != "sqlite":
            urls["postgres"] = stack.enter_context(Postgres()).create_database()
        for name, url in urls.items():
            fill(url, arguments.rows)
            measured = measure(folder, url, arguments.rows, arguments.starts)
            results[name] = {**measured, "disk_mb": round(disk_bytes(url) / 2**20)}
            file = {"index_file": folder / f"{name}.codes"}
            measure(folder, url, arguments.rows, 1, **file)  # writes the file when it stops
            with_file = measure(folder, url, arguments.rows, arguments.starts, **file)
            results[f"{name}, GPQ_INDEX_FILE"] = with_file
    path = RESULTS / f"start-{arguments.rows}.json" if arguments.rows >= 1_000_000 else None
    save(results, path, indent=2)


if __name__ == "__main__":
    main()
