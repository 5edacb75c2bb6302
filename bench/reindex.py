"""Measures searches while all stored images get codes of another model, and while it is activated.

    python -m bench.reindex --data CIFAR10 --pictures 50000 --rate 10     SQLite, about half an hour
    python -m bench.reindex --pictures 500                 a small one on random images, a minute

CIFAR10 is a folder of train/<class>/*.jpg. The new model is the shipped one cut to 24 bits.
Searches are sent at a fixed rate, even if earlier ones have no reply yet, and timed from when they
are due. The first phase has searches only. In the second, `python -m service models reindex` runs.
In the third, the new model is activated, rolled back and activated again. Results are written to
bench/results/reindex.json.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from tqdm import tqdm

from bench.database import sqlite_url
from bench.machine import describe
from bench.output import RESULTS, save
from harness import ROOT
from harness.images import png
from harness.models import SHIPPED
from harness.processes import environment
from harness.server import Server
from trainer.artifacts.cut import cut

WRITTEN = RESULTS / "reindex.json"
BATCH = 100  # images per POST /index
QUERIES = 200  # different images that are searched for


class Searches:
    """Searches at a fixed rate during one phase.

    ``rate``: searches a second. ``good``: whether a reply is right. ``seconds``: times of all
    searches. ``failed``: replies or errors of the failed searches.
    """

    def __init__(
        self,
        url: str,
        images: list[bytes],
        rate: float,
        good: Callable[[httpx.Response], bool] = lambda r: len(r.json()["results"]) == 10,
    ) -> None:
        self.url, self.images, self.rate, self.good = url, images, rate, good
        self.seconds: list[float] = []
        self.failed: list[str] = []

    async def run(self, done: Callable[[], bool]) -> None:
        """Sends searches until ``done()`` is true, and waits for the last reply."""
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as http:
            started = time.monotonic()
            tasks = []
            for n in range(1 << 30):
                await asyncio.sleep(max(0.0, started + n / self.rate - time.monotonic()))
                if done():
                    break
                due = started + n / self.rate
                image = self.images[n % len(self.images)]
                tasks.append(asyncio.create_task(self._one(http, image, due)))
            await asyncio.gather(*tasks)

    async def _one(self, http: httpx.AsyncClient, image: bytes, due: float) -> None:
        try:
            reply = await http.post("/search", files={"image": image}, data={"k": 10})
            if reply.status_code != 200 or not self.good(reply):
                self.failed.append(reply.text[:200])
        except httpx.HTTPError as error:
            self.failed.append(repr(error))
        self.seconds.append(time.monotonic() - due)

    def summary(self) -> dict[str, object]:
        """Returns the entry of this phase in the results."""
        ms = np.array(self.seconds) * 1000
        p50, p99 = (round(float(np.quantile(ms, q)), 1) for q in (0.5, 0.99))
        worst = round(float(ms.max()), 1)
        return {"searches": len(ms), "failed": len(self.failed), "p50_ms": p50, "p99_ms": p99,
                "worst_ms": worst}  # fmt: skip


def models(settings: dict[str, object], *arguments: str) -> subprocess.Popen[str]:
    """Starts `python -m service models …`, whose progress is shown on standard error."""
    command = [sys.executable, "-m", "service", "models", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(**settings), stdout=subprocess.PIPE, text=True
    )


def timed(settings: dict[str, object], *arguments: str) -> float:
    """Runs a command of `models` and returns its seconds, most of them for starting torch."""
    started = time.monotonic()
    process = models(settings, *arguments)
    assert process.wait() == 0, arguments
    return round(time.monotonic() - started, 2)


def put_all(server: Server, images: list[bytes]) -> None:
    """Stores the images by POST /index."""
    for first in tqdm(range(0, len(images), BATCH), desc="storing", unit_scale=BATCH):
        part = images[first : first + BATCH]
        ids = json.dumps([f"p{first + n}" for n in range(len(part))])
        server.index(*part, ids=ids).raise_for_status()


def switches(settings: dict[str, object], server: Server, new: str, old: str) -> dict[str, float]:
    """Activates the new model, rolls back and activates it again.

    Returns the seconds of each command, and from its end until the service uses the model.
    """
    lags = {}
    for name, arguments, model in (
        ("activate", ("activate", new), new),
        ("rollback", ("rollback",), old),
        ("activate again", ("activate", new), new),
    ):
        lags[f"{name}, the command"] = timed(settings, *arguments)
        started = time.monotonic()
        while server.http.get("/model").json()["id"] != model:
            time.sleep(0.01)
        lags[f"{name}, then"] = round(time.monotonic() - started, 3)
    return lags


def run_phase(searches: Searches, seconds: float) -> dict[str, object]:
    """Runs a phase of fixed length and returns its summary."""
    until = time.monotonic() + seconds
    asyncio.run(searches.run(lambda: time.monotonic() > until))
    return searches.summary()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 (random images)")
    parser.add_argument("--pictures", type=int, default=50_000, help="number of stored images")
    parser.add_argument("--rate", type=float, default=10.0, help="searches per second")
    parser.add_argument("--share", default="0.5", help="of the time that re-indexing may work")
    parser.add_argument("--alone", type=float, default=60.0, help="seconds of searches alone")
    parser.add_argument("--out", type=Path, default=WRITTEN, help="JSON file (%(default)s)")
    options = parser.parse_args()
    if options.data:
        files = sorted((options.data / "train").rglob("*.jpg"))[: options.pictures]
        images = [file.read_bytes() for file in files]
    else:
        images = [png(n) for n in range(options.pictures)]
    queries = images[:: max(1, len(images) // QUERIES)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new = cut(SHIPPED, 24, folder / "new")
        settings = {"database_url": sqlite_url(folder), "image_store": folder / "images"}
        with Server(folder, **settings) as server:
            put_all(server, images)
            old = server.http.get("/model").json()["id"]
            alone = run_phase(Searches(server.url, queries, options.rate), options.alone)
            assert models(settings, "add", str(folder / "new")).wait() == 0
            job = models(settings, "reindex", "--share", options.share)
            started = time.monotonic()
            meanwhile = Searches(server.url, queries, options.rate)
            asyncio.run(meanwhile.run(lambda: job.poll() is not None))
            assert job.returncode == 0
            seconds = round(time.monotonic() - started, 1)
            switching = Searches(server.url, queries, options.rate)
            lags: dict[str, float] = {}

            async def switch() -> None:
                work = asyncio.to_thread(switches, settings, server, new, old)
                task = asyncio.create_task(work)
                await switching.run(task.done)
                lags.update(await task)

            asyncio.run(switch())
        results = {
            "pictures": len(images), "rate": options.rate, "share": options.share,
            "alone": alone, "while re-indexing": meanwhile.summary(), "reindex_s": seconds,
            "while switching": switching.summary(), "switch_s": lags,
            "machine": describe(),
        }  # fmt: skip
    for line in (*meanwhile.failed, *switching.failed):
        print(line, file=sys.stderr)
    save(results, options.out)


if __name__ == "__main__":
    main()
