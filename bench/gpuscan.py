"""Checks the results of the CUDA scan, and measures it beside the GPU's limits and other methods.

    python -m bench.gpuscan --rows 10000000 --out runs/gpu/x.json       a minute on a GPU
    python -m bench.gpuscan --device cpu --rows 3000 --queries 1 4 --k 10 --repeats 1
                                                                        in Triton's interpreter
    python -m bench.gpuscan --draw runs/gpu              draws docs/gpu.png from earlier results

The codes have 48 bits and are uniformly random, which is the worst case. Before anything is
measured, the results must equal the reference scanner's for at most a million codes. For all
codes, the rows and scores of one query must be bit by bit what torch finds by summing every
score in the same order, and every query must have the same result alone as in a batch.

Times are medians, measured by CUDA events from look-up tables to keys, both in GPU memory. The
limits are the GPU's copy bandwidth and its rates of matrix products. The other methods are look-ups
by torch's index_select, and IVF-PQ of cuVS if it is installed. cuVS probes all of its lists and
encodes vectors in 48 bits by itself, so that only its time can be compared, not its results.
faiss's GpuIndexIVFPQ does not support 4-bit sub-codes.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.machine import describe
from bench.output import save
from gpq.scan.reference import ReferenceScanner
from harness import ROOT

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # the kernels read this when they are first imported

from gpq.scan.cuda.kernels import bound
from gpq.scan.cuda.scanner import LAST_KEY, CudaScanner
from gpq.scan.cuda.search import Search
from gpq.scan.hits import Hits

M, K = 12, 16
CHECKED_ROWS = 1_000_000
COPIED_BYTES = 4 << 30
SIDE = 8192  # rows and columns of the multiplied matrices
CHUNK = 1 << 24  # rows scored by torch at a time
CUVS_LISTS = 1024  # each list is searched by one block of threads
PLOT = ROOT / "docs" / "gpu.png"


def milliseconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Returns the median time of ``repeats`` calls, after one that is not counted."""
    work()
    found = []
    for _ in range(repeats):
        if device.type != "cuda":
            started = time.perf_counter()
            work()
            found.append(1000 * (time.perf_counter() - started))
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end))
    return statistics.median(found)


def ceilings(device: torch.device, repeats: int) -> dict[str, float]:
    """Measures the GPU's limits.

    They are the TB/s that a copy reads and writes together, and 10¹² operations a second of matrix
    products in bf16 and int8.
    """
    if device.type != "cuda":
        return {}
    wide = torch.randn(SIDE, SIDE, device=device).bfloat16()
    bytes_ = torch.randint(-9, 9, (SIDE, SIDE), dtype=torch.int8, device=device)
    operations = 2 * SIDE**3
    bf16 = milliseconds(partial(torch.matmul, wide, wide), repeats, device)
    int8 = milliseconds(partial(torch._int_mm, bytes_, bytes_.T), repeats, device)
    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=device)
    copy = milliseconds(partial(torch.empty_like(source).copy_, source), repeats, device)
    return {
        "copy_TB_s": 2 * COPIED_BYTES / copy / 1e9,
        "bf16_T_s": operations / bf16 / 1e9,
        "int8_T_s": operations / int8 / 1e9,
    }


def search_on_device(scanner: CudaScanner, luts: Tensor, k: int) -> Callable[[], Tensor]:
    """Returns a function that searches with look-up tables (Q,M,K) on the device."""
    snapshot = scanner.snapshot
    return Search(snapshot.slabs, snapshot.count, luts, k, LAST_KEY, paging=False).best


def check(packed: np.ndarray, scanner: CudaScanner, luts: np.ndarray, k: int) -> None:
    """Checks results as the module says; raises SystemExit if one is wrong."""
    few = packed[:CHECKED_ROWS]
    reference, part = ReferenceScanner(few, M), CudaScanner(few, M, scanner.device)
    for some in (luts[:1], luts):
        expected, found = reference.search(some[:64], k), part.search(some, k)
        if not all((e == f[: len(e)]).all() for e, f in zip(expected, found, strict=True)):
            raise SystemExit("error: the results differ from the reference scanner's")
    together = scanner.search(luts, k)
    expected = search_by_torch(scanner, torch.from_numpy(luts[:1]).to(scanner.device), k)
    if not all((t[0] == e).all() for t, e in zip(together, expected, strict=True)):
        raise SystemExit("error: the results differ from scores summed by torch")
    for q in range(min(3, len(luts))):
        alone = scanner.search(luts[q : q + 1], k)
        if not all((a[0] == t[q]).all() for a, t in zip(alone, together, strict=True)):
            raise SystemExit("error: the results of a query alone and in a batch differ")


def chunks(scanner: CudaScanner, luts: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yields chunks of n rows: the first row, and scores (Q,n) summed by torch's look-ups."""
    for slab in scanner.snapshot.slabs:
        last = min(slab.capacity, scanner.snapshot.count - slab.first_row)
        for first in range(0, last, CHUNK):
            planes = slab.planes[:, first : min(first + CHUNK, last)].int()
            scores = torch.zeros((len(luts), planes.shape[1]), device=luts.device)
            for m in range(M):
                scores += luts[:, m].index_select(1, (planes[m // 2] >> (m % 2 * 4)) & 15)
            yield slab.first_row + first, scores


def search_by_torch(scanner: CudaScanner, luts: Tensor, k: int) -> Hits:
    """Returns the k best rows of one query and their scores; the lower of equal rows comes first.

    ``luts`` (1,M,K).
    """
    rows = torch.empty(0, dtype=torch.int64, device=luts.device)
    best = torch.empty(0, device=luts.device)
    for first, scores in chunks(scanner, luts):
        kth = scores[0].topk(min(k, scores.shape[1])).values[-1]
        reached = (scores[0] >= kth).nonzero().flatten()
        rows, best = torch.cat([rows, first + reached]), torch.cat([best, scores[0, reached]])
        order = best.argsort(descending=True, stable=True)[:k]
        rows, best = rows[order], best[order]
    missing = (0, k - len(rows))
    rows, best = (
        torch.nn.functional.pad(found, missing, value=value)
        for found, value in ((rows, -1), (best, -torch.inf))
    )
    return rows.cpu().numpy(), best.cpu().numpy()


def best_scores_by_torch(scanner: CudaScanner, luts: Tensor, k: int) -> Tensor:
    """Returns the k best scores (Q,k). This is the method that the scan is compared to."""
    best = torch.full((len(luts), k), -torch.inf, device=luts.device)
    for _, scores in chunks(scanner, luts):
        best = torch.cat([best, scores], dim=1).topk(k).values
    return best


def measure_cuvs(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Returns the milliseconds of cuVS over as many codes, or why cuVS cannot be imported."""
    try:
        from cuvs.neighbors import ivf_pq
    except ImportError as error:
        return {"absent": str(error)}
    kind = {"n_lists": CUVS_LISTS, "metric": "inner_product", "pq_bits": 4, "pq_dim": M}
    index = ivf_pq.build(
        ivf_pq.IndexParams(**kind), torch.randn(min(CHUNK, options.rows), M, device=device)
    )
    for first in range(CHUNK, options.rows, CHUNK):
        rows = torch.arange(first, min(first + CHUNK, options.rows), device=device)
        index = ivf_pq.extend(index, torch.randn(len(rows), M, device=device), rows)
    all_lists = ivf_pq.SearchParams(n_probes=CUVS_LISTS)
    searches = []
    for Q in options.queries:
        queries = torch.randn(Q, M, device=device)
        for k in options.k:
            search = partial(ivf_pq.search, all_lists, index, queries, k)
            searches.append({"Q": Q, "k": k, "ms": milliseconds(search, options.repeats, device)})
    return {**kind, "searches": searches}


def tune(scanner: CudaScanner, luts: Tensor, k: int, repeats: int) -> dict[str, float]:
    """Returns the milliseconds of a search with different block sizes of the filter kernel.

    It is -1 for a size that the GPU cannot run.
    """
    before, found = (bound.ROWS, bound.MOST_QUERIES, bound.WARPS), {}
    for rows in (64, 128, 256):
        for queries in (64, 128, 256):
            for warps in (4, 8):
                bound.ROWS, bound.MOST_QUERIES, bound.WARPS = rows, queries, warps
                name = f"{rows} rows, {queries} queries, {warps} warps"
                try:
                    work = search_on_device(scanner, luts, k)
                    found[name] = round(milliseconds(work, repeats, luts.device), 3)
                except Exception as error:  # for example, the GPU has too few registers
                    found[name] = -1
                    print(f"{name}: {error}", flush=True)
    bound.ROWS, bound.MOST_QUERIES, bound.WARPS = before
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Builds the index, checks its results and measures everything."""
    device = torch.device(options.device)
    random = np.random.default_rng(0)
    packed = np.frombuffer(random.bytes(options.rows * M // 2), np.uint8).reshape(-1, M // 2)
    started = time.perf_counter()
    scanner = CudaScanner(packed, M, device)
    build_s = time.perf_counter() - started
    tables = random.standard_normal((max(options.queries), M, K), np.float32)
    check(packed, scanner, tables[: min(len(tables), 64)], max(options.k))
    searches = []
    for Q in options.queries:
        luts = torch.from_numpy(tables[:Q].copy()).to(device)
        for k in options.k:
            ms = milliseconds(search_on_device(scanner, luts, k), options.repeats, device)
            row = {"Q": Q, "k": k, "ms": ms, "ms_a_query": ms / Q}
            row["pairs_a_second"] = options.rows * Q / ms * 1000
            if Q <= 16 and k == max(options.k):
                peer = partial(best_scores_by_torch, scanner, luts, k)
                row["torch_ms"] = milliseconds(peer, options.repeats, device)
            searches.append(row)
            print(json.dumps(row), flush=True)
    large = torch.from_numpy(tables[:256].copy()).to(device)
    return {
        "rows": options.rows,
        "bits": 4 * M,
        "bytes_a_code": scanner.bytes / options.rows,
        "build_s": build_s,
        "ceilings": ceilings(device, options.repeats),
        "searches": searches,
        "cuvs": measure_cuvs(options, device),
        "tuning_ms": tune(scanner, large, max(options.k), options.repeats) if options.tune else {},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "interpreter",
        "machine": describe(),
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "driver": _driver()},
    }


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().split("\n")[0] if path.is_file() else ""


def draw(folder: Path, plot: Path) -> None:
    """Draws the results in the files ``gpu-scan-*.json`` of a folder."""
    import matplotlib.pyplot as plt

    from bench import plots

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    results = [json.loads(path.read_text()) for path in folder.glob("gpu-scan-*.json")]
    for found in sorted(results, key=lambda found: found["rows"]):
        k = max(row["k"] for row in found["searches"])
        rows = [row for row in found["searches"] if row["k"] == k]
        label = f"{found['rows']:,} codes, k = {k}, {found['device']}"
        queries = [row["Q"] for row in rows]
        axes[0].plot(queries, [row["ms_a_query"] for row in rows], marker="o", label=label)
        rates = [row["pairs_a_second"] / 1e9 for row in rows]
        axes[1].plot(queries, rates, marker="o", label=label)
    axes[0].set(title="ms per query", xlabel="queries at once", xscale="log", yscale="log")
    axes[1].set(title="billion codes × queries per second", xlabel="queries at once", xscale="log")
    for axis in axes:
        axis.xaxis.set_major_formatter("{x:g}")
        plots.hide_frame(axis)
        axis.legend(frameon=False)
    plots.plain_log_ticks(axes[0])
    figure.savefig(plot, dpi=110)
    plt.close(figure)
    print(f"wrote {plot}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--rows", type=int, default=10_000_000, help="number of codes")
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 16, 64, 256, 1024])
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tune", action="store_true", help="also try other block sizes")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument(
        "--draw", type=Path, metavar="FOLDER", help="draw earlier results, and do not measure"
    )
    parser.add_argument("--plot", type=Path, default=PLOT, help="plot of --draw (%(default)s)")
    options = parser.parse_args()
    if options.draw:
        draw(options.draw, options.plot)
        return
    save(measure(options), options.out)


if __name__ == "__main__":
    main()
