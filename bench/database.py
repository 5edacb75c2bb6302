"""Fills a database with random codes, and runs the service over it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from tqdm import tqdm

from gpq.model import artifact
from harness.models import SHIPPED
from harness.server import Server
from service.database.migrate import migrate
from service.database.schema import codes as codes_table
from service.database.schema import feed, images
from service.database.store import Store
from service.models import artifacts

CHUNK = 20_000  # rows per transaction


def sqlite_url(folder: Path) -> str:
    """Returns the URL of the SQLite database of the service that runs in ``folder``."""
    return f"sqlite:///{folder}/gpq.db"


@contextmanager
def filled_service(
    folder: Path, rows: int, model: Path = SHIPPED, **settings: object
) -> Iterator[Server]:
    """Runs the service in ``folder`` over ``rows`` stored images without originals."""
    url = sqlite_url(folder)
    fill(url, rows, model)
    settings = {"model": model, "database_url": url, "image_store": "none", **settings}
    with Server(folder, **settings) as server:
        yield server


def fill(
    url: str,
    rows: int,
    model: Path = SHIPPED,
    metadata: Callable[[int], str | None] = lambda seq: None,
    codes: NDArray[np.uint8] | None = None,
) -> None:
    """Writes rows as ``Store.put`` leaves them, but in bulk.

    ``model``: folder of the model that the codes are stored for. ``metadata``: of each seq.
    ``codes``: packed codes (rows, M/2); uniformly random if None.
    """
    store, loaded = Store(url), artifact.load(model)
    migrate(store.database)
    if codes is None:
        size = rows, loaded.codebook.M // 2
        codes = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    store.models.adopt(loaded.id, artifacts.read(model))
    number = store.models.get(loaded.id).number
    for first in tqdm(range(0, rows, CHUNK), desc=url.partition(":")[0], unit_scale=CHUNK):
        seqs = range(first + 1, min(first + CHUNK, rows) + 1)
        image = {"width": 640, "height": 480, "bytes": 50_000}
        image |= {"created": "2026-11-21T00:00:00.000Z"}
        with store.database.transaction() as connection:
            connection.execute(
                sa.insert(images),
                [
                    {"id": f"{n:032x}", "seq": n, "sha256": f"{n:064x}", **image}
                    | {"metadata": metadata(n)}
                    for n in seqs
                ],
            )
            connection.execute(
                sa.insert(codes_table),
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


def disk_bytes(url: str) -> int:
    """Returns the size of the database in bytes, with all its tables and indexes."""
    store = Store(url)
    with store.database.read() as connection:
        if store.database.is_postgres:
            size = connection.scalar(sa.text("SELECT pg_database_size(current_database())"))
        else:
            pages, page_bytes = (
                connection.scalar(sa.text(f"PRAGMA {name}")) for name in ("page_count", "page_size")
            )
            size = pages * page_bytes
    store.close()
    return int(size)
