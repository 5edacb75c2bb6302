"""Pages and groups to the end of a catalogue while four clients write to it.

    python -m bench.writes                       about 5 minutes
    python -m bench.writes --rows 20000 --databases sqlite

The catalogue has random codes. Of its images, a tenth is replaced, described and deleted all the
time by four clients over two services; the others stay as they are. Meanwhile searches page to the
end, every page on another service, with a filter and without, and ask for groups whose scans look
at all images. Of the images that stay, none may come twice, be missing, or stand out of order; the
groups must be those of the whole ranking. Results are written to bench/results/writes.json.
"""

import argparse
import itertools
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from bench.database import fill, sqlite_url
from bench.machine import describe
from bench.output import RESULTS, save
from harness.images import png
from harness.models import SHIPPED
from harness.postgres import Postgres
from harness.server import Server

ROWS, WRITERS, ROUNDS = 100_000, 4, 3
PRODUCTS = 800  # values of the field that hits are grouped by
PAGE, GROUP_SIZE = 1000, 10
LEFT = 10  # one of so many images is written


def metadata(seq: int) -> str:
    return json.dumps({"product": seq * 7919 % PRODUCTS, "half": seq % 2, "quiet": seq % LEFT != 0})


def written(id: str) -> bool:
    """Returns whether clients write an image."""
    return len(id) != 32 or int(id, 16) % LEFT == 0


class Writers:
    """Clients that write in threads. ``counts``: replies by request and status."""

    def __init__(self, servers: Sequence[Server], rows: int) -> None:
        self.servers, self.rows, self.counts = servers, rows, Counter[str]()
        self._done, self._counting = threading.Event(), threading.Lock()

    @contextmanager
    def writing(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._write, args=(n,)) for n in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            for thread in threads:
                thread.join()

    def _write(self, number: int) -> None:
        server = self.servers[number % len(self.servers)]
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for turn in itertools.count(number, WRITERS):
                if self._done.is_set():
                    return
                id = f"{turn * LEFT % self.rows + LEFT:032x}"
                kind = turn // WRITERS % 3
                if kind == 0:
                    fields = {"ids": json.dumps([id]), "metadata": f"[{metadata(LEFT)}]"}
                    reply = http.post("/index", files={"images": png(turn)}, data=fields)
                elif kind == 1:
                    body = {"metadata": {"product": turn % PRODUCTS, "half": turn % 2}}
                    reply = http.patch(f"/images/{id}", json=body)
                else:
                    reply = http.delete(f"/images/{id}")
                with self._counting:
                    self.counts[f"{reply.request.method} {reply.status_code}"] += 1


def pages(servers: Sequence[Server], body: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Yields the hits of every page, each from another service."""
    for turn in itertools.count():
        reply = servers[turn % len(servers)].http.post("/search", json=body).raise_for_status()
        yield reply.json()["results"]
        if reply.json()["next_cursor"] is None:
            return
        body = {"cursor": reply.json()["next_cursor"]}


def check_pages(
    servers: Sequence[Server], query: str, filter: dict[str, Any], expected: set[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Pages to the end; returns what was found, and the hits that stay as they are, in order."""
    began = time.perf_counter()
    body = {"id": query, "k": PAGE, "pages": True, "filter": filter}
    found = [hit for page in pages(servers, body) for hit in page]
    quiet = [hit for hit in found if not written(hit["id"])]
    times = Counter(hit["id"] for hit in quiet)
    ranks = [(-hit["score"], int(hit["id"], 16)) for hit in quiet]
    all_scores = [hit["score"] for hit in found]
    result = {
        "hits": len(found),
        "twice": sum(count > 1 for count in times.values()),
        "missing": len(expected - times.keys()),
        "too_many": len(times.keys() - expected),
        "out_of_order": sum(a > b for a, b in itertools.pairwise(ranks)),
        "scores_out_of_order": sum(a < b for a, b in itertools.pairwise(all_scores)),
        "seconds": round(time.perf_counter() - began, 1),
    }
    return result, quiet


def check_groups(server: Server, query: str, ranking: list[dict[str, Any]]) -> dict[str, Any]:
    """Compares the groups of the images that stay with those of their whole ranking."""
    began = time.perf_counter()
    body = {
        "id": query, "k": PAGE, "group_by": "product", "group_size": GROUP_SIZE,
        "filter": {"quiet": True},
    }  # fmt: skip
    reply = server.http.post("/search", json=body).raise_for_status().json()
    expected: dict[int, list[str]] = {}
    for hit in ranking:
        expected.setdefault(hit["metadata"]["product"], []).append(hit["id"])
    found = [
        (hit["group"], [hit["id"], *(other["id"] for other in hit["others"])])
        for hit in reply["results"]
    ]
    wanted = [(product, ids[:GROUP_SIZE]) for product, ids in expected.items()]
    # Images that are written may belong to the filter, too.
    clean = [(product, [id for id in ids if not written(id)]) for product, ids in found]
    wrong = [pair for pair in zip(clean, wanted, strict=False) if pair[0] != pair[1]]
    return {
        "groups": len(found),
        "expected": len(wanted),
        "wrong": len(wrong) + abs(len(found) - len(wanted)),
        "complete": reply["complete"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def run(url: str, folder: Path, rows: int) -> dict[str, Any]:
    fill(url, rows, SHIPPED, metadata)
    settings = {"model": SHIPPED, "database_url": url, "image_store": "none"}
    quiet = {f"{n:032x}" for n in range(1, rows + 1) if n % LEFT}
    halves = {id for id in quiet if int(id, 16) % 2}
    with ExitStack() as stack:
        servers = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            servers.append(stack.enter_context(Server(folder / name, **settings)))
            servers[-1].http.timeout = 120
        writers = Writers(servers, rows)
        checks: dict[str, list[dict[str, Any]]] = {"pages": [], "filtered": [], "groups": []}
        with writers.writing():
            for turn in tqdm(range(ROUNDS), desc=url.partition(":")[0]):
                query = f"{turn * 1001 + 1:032x}"
                found, ranking = check_pages(servers, query, {}, quiet)
                checks["pages"].append(found)
                found, _ = check_pages(servers, query, {"half": 1}, halves)
                checks["filtered"].append(found)
                checks["groups"].append(check_groups(servers[turn % 2], query, ranking))
    return {**checks, "writes": dict(sorted(writers.counts.items()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--out", type=Path, default=RESULTS / "writes.json")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": describe(), "rows": options.rows, "writers": WRITERS}
    for name in options.databases:
        with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
            folder = Path(place)
            url = sqlite_url(folder)
            if name == "postgres":
                url = stack.enter_context(Postgres()).create_database()
            results[name] = run(url, folder, options.rows)
    save(results, options.out)


if __name__ == "__main__":
    main()
