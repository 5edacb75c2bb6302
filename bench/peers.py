"""Applications with a route POST /search that ``bench.service`` compares the service to.

    uvicorn --factory bench.peers:pillow      parses the upload and decodes it with Pillow
    uvicorn --factory bench.peers:floats      decodes and encodes as the service does, and searches
                                              float features with faiss IndexFlatIP
    uvicorn --factory bench.peers:pgvector    does the same with pgvector and HNSW

The environment variable BENCH_ROWS is the number of stored images, whose features are random unit
vectors. BENCH_POSTGRES is the URL of an empty database that has the extension vector available.
"""

import os

import numpy as np
from fastapi import FastAPI, UploadFile
from numpy.typing import NDArray
from PIL import Image

from gpq.engine import engines
from gpq.model.model import Model
from harness.models import SHIPPED

K = 10


def pillow() -> FastAPI:
    """Returns the application that only decodes the image."""
    app = FastAPI()

    @app.post("/search")
    def search(image: UploadFile) -> dict[str, int]:
        opened = Image.open(image.file)
        opened.load()
        return {"width": opened.width, "height": opened.height}

    return app


def floats() -> FastAPI:
    """Returns the application that searches with faiss, exactly."""
    import faiss

    app, model = FastAPI(), engines.load(SHIPPED)
    stored = _stored(model)
    index = faiss.IndexFlatIP(stored.shape[1])
    index.add(stored)

    @app.post("/search")
    def search(image: UploadFile) -> list[tuple[int, float]]:
        scores, rows = index.search(_features(model, image), K)
        return list(zip(rows[0].tolist(), scores[0].tolist(), strict=True))

    return app


def pgvector() -> FastAPI:
    """Fills the database, and returns the application that searches it with pgvector."""
    import psycopg_pool

    app, model = FastAPI(), engines.load(SHIPPED)
    stored = _stored(model)
    pool = psycopg_pool.ConnectionPool(os.environ["BENCH_POSTGRES"], min_size=8, max_size=8)
    with pool.connection() as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute(f"CREATE TABLE images (id int, features vector({stored.shape[1]}))")
        with connection.cursor().copy("COPY images FROM STDIN") as copy:
            for row, vector in enumerate(stored):
                copy.write_row((row, _text(vector)))
        connection.execute("CREATE INDEX ON images USING hnsw (features vector_ip_ops)")

    @app.post("/search")
    def search(image: UploadFile) -> list[tuple[int, float]]:
        query = _text(_features(model, image)[0])
        with pool.connection() as connection:
            found = connection.execute(
                "SELECT id, features <#> %s::vector FROM images ORDER BY 2 LIMIT %s", (query, K)
            ).fetchall()
        return [(row, -score) for row, score in found]

    return app


def _features(model: Model, image: UploadFile) -> NDArray[np.float32]:
    pixels = model.read(image.file.read())
    return _unit(model.features(pixels[None]))


def _stored(model: Model) -> NDArray[np.float32]:
    rows, size = int(os.environ["BENCH_ROWS"]), model.rules.size
    D = model.features(np.zeros((1, 3, size, size), np.uint8)).shape[1]
    return _unit(np.random.default_rng(0).standard_normal((rows, D), np.float32))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _text(vector: NDArray[np.float32]) -> str:
    return "[" + ",".join(f"{value:.6g}" for value in vector) + "]"
