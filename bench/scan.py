"""The scan against faiss's on the same codes, in one process and one run.

    make bench                        N = 1,000,000, M = 12
    make bench ARGS="--rows 100000"   a small one

Medians of several runs, one thread; results go to bench/results/scan.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

from bench.machine import describe
from gpq import scan

RESULTS = Path(__file__).parent / "results" / "scan.json"
REPEATS = 5


def median_ms(work: Callable[[], object]) -> float:
    """Median milliseconds of REPEATS calls after one to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def faiss_pq(packed: np.ndarray, Z: np.ndarray) -> faiss.IndexPQ:
    """IndexPQ with our codewords and codes: its 4-bit layout is ours."""
    M, _, d = Z.shape
    index = faiss.IndexPQ(M * d, M, 4, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(Z.ravel(), index.pq.centroids)
    index.is_trained = True
    index.add_sa_codes(packed)
    return index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--M", type=int, default=12)
    parser.add_argument("--k", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)

    random = np.random.default_rng(0)
    M, d = options.M, 12
    Z = random.standard_normal((M, 16, d)).astype(np.float32)
    Z /= np.linalg.norm(Z, axis=-1, keepdims=True)
    packed = random.integers(0, 256, (options.rows, (M + 1) // 2), dtype=np.uint8)
    query = random.standard_normal((1, M, d)).astype(np.float32)
    query /= np.linalg.norm(query, axis=-1, keepdims=True)
    lut = (np.einsum("qmd,mkd->qmk", query, Z) / M).astype(np.float32)

    ours = scan.build(packed, M)
    peer = faiss_pq(packed, Z)
    rows, _ = ours.search(lut, options.k)
    _, peer_rows = peer.search(query.reshape(1, -1), options.k)
    agree = len(set(rows[0]) & set(peer_rows[0])) / options.k
    ours_ms = median_ms(lambda: ours.search(lut, options.k))
    peer_ms = median_ms(lambda: peer.search(query.reshape(1, -1), options.k))

    result = {
        "rows": options.rows,
        "M": M,
        "k": options.k,
        "repeats": REPEATS,
        "reference_ms": round(ours_ms, 2),
        "faiss_IndexPQ_ms": round(peer_ms, 2),
        "reference_over_IndexPQ": round(ours_ms / peer_ms, 2),
        "same_hits": agree,
        "machine": describe(),
        "versions": {"torch": str(torch.__version__), "faiss": faiss.__version__},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
