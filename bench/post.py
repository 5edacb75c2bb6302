"""POST /search of a whole service whose codes are on a card, one at a time and many at once.

    python -m bench.post                                  a million pictures, GPQ_SCAN=auto
    python -m bench.post --rows 10000 --seconds 2 --scan native

Pictures of 32×32, as in examples/; the shipped model, on the same device. The time of a search
is that of its reply, the stages of it from Server-Timing. Prints JSON.
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from bench.database import filled_service
from bench.machine import describe
from bench.output import save
from harness.images import EXAMPLES
from harness.server import Server

CLIENTS = (1, 16, 64)


def searches(server: Server, picture: bytes, clients: int, seconds: float) -> dict[str, object]:
    """By so many clients, each sending its next search when it has the reply to its last."""
    end = time.monotonic() + seconds

    def ask() -> list[float]:
        taken = []
        with httpx.Client(base_url=server.url, timeout=60) as http:
            while time.monotonic() < end:
                started = time.perf_counter()
                http.post("/search", files={"image": picture}).raise_for_status()
                taken.append(time.perf_counter() - started)
        return taken

    with ThreadPoolExecutor(clients) as pool:
        taken = [t for each in [pool.submit(ask) for _ in range(clients)] for t in each.result()]
    return {
        "clients": clients,
        "searches_a_second": round(len(taken) / seconds, 1),
        "p50_ms": round(1000 * statistics.median(taken), 2),
        "server_timing": server.search(picture).headers["Server-Timing"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--scan", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    picture = min(EXAMPLES.rglob("*.jpg")).read_bytes()
    with (
        tempfile.TemporaryDirectory() as name,
        filled_service(Path(name), options.rows, scan=options.scan) as server,
    ):
        server.search(picture)
        found = [searches(server, picture, n, options.seconds) for n in CLIENTS]
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
