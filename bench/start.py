"""A million stored pictures: from the start of the process to ready, its memory, the disk's.

    python -m bench.start                          both databases, 1e6 rows, 3 starts each
    python -m bench.start --rows 10000             a small one, seconds
    python -m bench.start --rows 10000000 --only sqlite   5 GB of disk, 10 minutes to fill

Codes are uniform, M=12. Postgres runs on a temporary folder on this machine. What is timed
begins with the process and ends with 200 from /readyz: Python, torch, the shipped model and
its golden vectors, migrations, the rows from the database or, where a file is named, from
GPQ_INDEX_FILE, and the native engine's sorting.
"""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from tqdm import tqdm

from bench.machine import describe
from gpq.model import artifact
from harness.models import SHIPPED
from harness.postgres import Postgres
from harness.server import Server
from service.database.migrate import migrate
from service.database.schema import codes as of_models
from service.database.schema import feed, images
from service.database.store import Store
from service.models import artifacts

M = 12
CHUNK = 20_000
RESULTS = Path(__file__).parent / "results"


def fill(url: str, rows: int, model: str) -> None:
    """Rows as ``Store.put`` leaves them, written in bulk."""
    store = Store(url)
    migrate(store.database)
    codes = np.random.default_rng(0).integers(0, 256, (rows, M // 2), dtype=np.uint8)
    store.models.adopt(model, artifacts.read(SHIPPED))
    number = store.models.get(model).number
    for first in tqdm(range(0, rows, CHUNK), desc=url.partition(":")[0], unit_scale=CHUNK):
        seqs = range(first + 1, min(first + CHUNK, rows) + 1)
        picture = {"width": 640, "height": 480, "bytes": 50_000}
        picture |= {"created": "2026-11-21T00:00:00.000Z", "metadata": None}
        with store.database.transaction() as connection:
            connection.execute(
                sa.insert(images),
                [{"id": f"{n:032x}", "seq": n, "sha256": f"{n:064x}", **picture} for n in seqs],
            )
            connection.execute(
                sa.insert(of_models),
                [{"model": number, "seq": n, "code": codes[n - 1].tobytes()} for n in seqs],
            )
            connection.execute(
                sa.insert(feed),
                [{"seq": n, "created": time.time()} for n in seqs],
            )
    if store.database.is_postgres:
        with store.database.transaction() as connection:
            connection.execute(sa.text(f"SELECT setval('feed_seq_seq', {rows})"))
    store.close()


def measure(
    folder: Path, url: str, rows: int, starts: int, **settings: object
) -> dict[str, object]:
    seconds, rss = [], []
    for _ in range(starts):
        server = Server(folder, model=SHIPPED, database_url=url, image_store="none", **settings)
        begun = time.monotonic()
        server.start()
        server.wait_until_ready()
        seconds.append(time.monotonic() - begun)
        assert server.http.get("/stats").json()["images"] == rows
        rss.append(server.rss())  # after counting them, as someone will
        assert server.stop() == 0
    return {
        "rows": rows,
        "start_to_ready_s": {
            "median": round(statistics.median(seconds), 2),
            "all": [round(value, 2) for value in seconds],
        },
        "rss_mb": round(statistics.median(rss) / 2**20),
    }


def disk_bytes(url: str) -> int:
    """Of the database, ids, sizes and checksums of the pictures and their indexes included."""
    store = Store(url)
    with store.database.read() as connection:
        if store.database.is_postgres:
            size = connection.scalar(sa.text("SELECT pg_database_size(current_database())"))
        else:
            pages, of_bytes = (
                connection.scalar(sa.text(f"PRAGMA {name}")) for name in ("page_count", "page_size")
            )
            size = pages * of_bytes
    store.close()
    return int(size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--only", choices=("sqlite", "postgres"))
    arguments = parser.parse_args()
    model = artifact.load(SHIPPED).id
    results: dict[str, object] = {"machine": describe()}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        empty = f"sqlite:///{folder}/empty.db"
        fill(empty, 0, model)
        results["empty"] = measure(folder, empty, 0, arguments.starts)
        urls = {}
        if arguments.only != "postgres":
            urls["sqlite"] = f"sqlite:///{folder}/gpq.db"
        if arguments.only != "sqlite":
            urls["postgres"] = stack.enter_context(Postgres()).create_database()
        for name, url in urls.items():
            fill(url, arguments.rows, model)
            measured = measure(folder, url, arguments.rows, arguments.starts)
            results[name] = {**measured, "disk_mb": round(disk_bytes(url) / 2**20)}
            file = {"index_file": folder / f"{name}.codes"}
            measure(folder, url, arguments.rows, 1, **file)  # writes it at its end
            with_file = measure(folder, url, arguments.rows, arguments.starts, **file)
            results[f"{name}, GPQ_INDEX_FILE"] = with_file
    print(json.dumps(results, indent=2))
    if arguments.rows >= 1_000_000:
        path = RESULTS / f"start-{arguments.rows}.json"
        path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
