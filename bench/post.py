"""Measures POST /search of a service whose codes are on a GPU, with 1, 16 and 64 clients.

    python -m bench.post                                  a million images, GPQ_SCAN=auto
    python -m bench.post --rows 10000 --seconds 2 --scan native

The searches send a 32×32 image to models/cifar10, which runs on the GPU too. The time of a search
is the time until its reply; the reply's Server-Timing shows its stages. The results are printed as
JSON.
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from bench import photographs
from bench.database import filled_service
from bench.machine import describe
from bench.output import save
from harness.server import Server

CLIENTS = (1, 16, 64)


def measure(server: Server, image: bytes, clients: int, seconds: float) -> dict[str, object]:
    """Measures searches of clients that each send the next one when they get a reply."""
    end = time.monotonic() + seconds

    def search() -> list[float]:
        taken = []
        with httpx.Client(base_url=server.url, timeout=60) as http:
            while time.monotonic() < end:
                started = time.perf_counter()
                http.post("/search", files={"image": image}).raise_for_status()
                taken.append(time.perf_counter() - started)
        return taken

    with ThreadPoolExecutor(clients) as pool:
        results = [pool.submit(search) for _ in range(clients)]
        taken = [t for result in results for t in result.result()]
    return {
        "clients": clients,
        "searches_a_second": round(len(taken) / seconds, 1),
        "p50_ms": round(1000 * statistics.median(taken), 2),
        "server_timing": server.search(image).headers["Server-Timing"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of stored images")
    parser.add_argument("--seconds", type=float, default=10, help="for each number of clients")
    parser.add_argument("--scan", default="auto", help="scan engine, see the setting GPQ_SCAN")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    image = photographs.by_size()["32×32"]
    with (
        tempfile.TemporaryDirectory() as name,
        filled_service(Path(name), options.rows, scan=options.scan) as server,
    ):
        server.search(image)
        found = [measure(server, image, n, options.seconds) for n in CLIENTS]
        stats = server.http.get("/stats").json()
    results = {
        "rows": options.rows,
        "engine": stats["engine"],
        "engine_reason": stats["engine_reason"],
        "searches": found,
        "machine": describe(),
    }
    save(results, options.out)


if __name__ == "__main__":
    main()
