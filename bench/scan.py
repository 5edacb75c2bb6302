"""Compares the speed of our scan to faiss on the same codes, in one process.

    make bench                                    1e6 and 1e7 codes, about 15 minutes
    make bench ARGS="--rows 100000 --out /tmp/x"  a small one
    make bench ARGS="--rows 100000000 --M 12"     1e8 codes, 10 GB of memory
    make bench ARGS="--float-rows 1000000"        a million floats; HNSW takes minutes to build

Everything runs on one thread. Every figure is the median over up to 64 single queries, or over 7
sets of 64 queries, each measured twice. The methods are measured alternately. Each is called up to
30 times first, so that the caches hold its data: right after another method the first calls take up
to three times as long.

There are four sets of codes. "uniform" is random. "clusters" has 100 classes, and each sub-code is
that of its class with probability 0.8. "real" has the codes of the 300 example images under
models/cifar10, or models/photos for long codes, with 5 % of the sub-codes replaced at random.
"features" are vectors of 1,000 classes, which vary in 64 directions and have noise, coded by
codebooks of k-means. Queries for the last three are drawn like their codes. Long codes, of 128 and
256 bits, are "uniform", "features" and "real". Methods on floats get fewer rows, because each
decoded code takes 576 bytes.

With --photographs DIR, which may be repeated, only long codes are measured: those of the images in
these folders under models/photos ("photographs"). Some of the images are queries instead. The
features come from the feature cache of the trainer.

Results are written to OUT/scan.json and, with the default OUT, docs/scan.png.
"""

import argparse
import contextlib
import importlib.metadata
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from bench import plots
from bench.features import Features
from bench.machine import describe
from bench.output import RESULTS, save
from gpq.engine import engines
from gpq.model.codebook import pack, unpack
from gpq.scan.mask import Mask
from gpq.scan.native import NativeScanner
from gpq.scan.reference import ReferenceScanner
from harness import ROOT
from harness.images import EXAMPLES
from harness.models import DEFAULT, SHIPPED
from harness.processes import resident_bytes
from service.index.seqs import Seqs
from trainer.components.source import Source, read
from trainer.quantise.command import Folder

REPEATS, ROUNDS = 7, 2
WARM_CALLS, WARM_SECONDS, ENOUGH_SECONDS = 30, 0.3, 1.0
KINDS = ("uniform", "clusters", "real")
LONG_KINDS, LONG_M, LONG_ROWS = ("uniform", "features", "real"), (32, 64), 300_000
CLASSES, KEPT = 100, 0.8  # of "clusters": KEPT is the probability of the class's sub-code
NOISE = 0.05  # share of the sub-codes of "real" that are random
D = 12  # dimensions of a sub-vector
# Of "features": classes, directions, the variation within a class relative to that of the classes,
# the noise of each dimension, and the vectors that codebooks are learnt from.
FEATURE_CLASSES, DIRECTIONS, WITHIN, DISTURBED, LEARNT_FROM = 1000, 64, 0.7, 0.5, 8000
FLOAT_ROWS = 100_000
DEPTHS = (1_000, 1_000_000)  # hits before the measured page
CHUNK = 1 << 20  # codes drawn at a time
CHECKED_ROWS = 1 << 20  # most rows for which results are compared to the reference scanner's
SLOW_ROWS = 20_000_000  # with more, the reference scanner and IndexPQ take seconds per query

QuerySearch = Callable[[int], object]  # searches for the n-th set of queries


@dataclass(frozen=True)
class Workload:
    """Codes to search, and queries.

    ``Z`` (M,16,d): codewords. ``packed`` (N,ceil(M/2)): the codes. ``vectors`` (REPEATS,Q,M,d):
    sub-vectors of REPEATS sets of Q queries, of about unit length. ``luts`` (REPEATS,Q,M,16):
    the look-up tables of the queries.
    """

    Z: NDArray[np.float32]
    packed: NDArray[np.uint8]
    vectors: NDArray[np.float32]

    @property
    def M(self) -> int:
        return len(self.Z)

    @property
    def d(self) -> int:
        return self.Z.shape[2]

    @property
    def luts(self) -> NDArray[np.float32]:
        tables = np.einsum("rqmd,mkd->rqmk", self.vectors, self.Z) / self.M
        return np.ascontiguousarray(tables, dtype=np.float32)


def unit(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scales vectors to unit length along the last axis."""
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def drawn(
    centres: NDArray[np.uint8], kept: float, rows: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Returns codes (rows,M): each is a random centre's code.

    A sub-code is that of the centre with probability ``kept``, otherwise it is random.
    """
    codes = centres[random.integers(0, len(centres), rows)]
    others = random.integers(0, 16, codes.shape, dtype=np.uint8)
    return np.where(random.random(codes.shape, dtype=np.float32) < kept, codes, others)


def make_workload(kind: str, rows: int, M: int, Q: int) -> Workload:
    """Draws codes of a kind (see the module), and sets of Q queries."""
    random = np.random.default_rng(0)
    if kind == "features":
        return make_features(rows, M, Q, random)
    if kind == "real":
        model = engines.load(DEFAULT if M in LONG_M else SHIPPED)
        files = sorted(EXAMPLES.rglob("*.jpg"))
        pixels = np.stack([model.read(file.read_bytes()) for file in files])
        centres = unpack(model.encode(pixels), model.codebook.M)[:, :M]
        Z, kept = model.codebook.Z[:M], 1 - NOISE
    else:
        centres = random.integers(0, 16, (CLASSES, M), dtype=np.uint8)
        Z, kept = unit(random.standard_normal((M, 16, D))), KEPT if kind == "clusters" else 0
    parts = [
        pack(drawn(centres, kept, min(CHUNK, rows - first), random))
        for first in range(0, rows, CHUNK)
    ]
    if kind == "uniform":
        vectors = random.standard_normal((REPEATS, Q, M, D))
    else:
        codes = drawn(centres, kept, REPEATS * Q, random).reshape(REPEATS, Q, M)
        d = Z.shape[2]
        noise = random.standard_normal((REPEATS, Q, M, d)) * (0.3 / d**0.5)
        vectors = Z[np.arange(M), codes] + noise
    return Workload(Z, np.concatenate(parts), unit(vectors))


def make_features(rows: int, M: int, Q: int, random: np.random.Generator) -> Workload:
    """Draws vectors of classes, and codes them by codebooks of k-means."""
    directions = random.standard_normal((DIRECTIONS, M * D)) / DIRECTIONS**0.5
    classes = random.standard_normal((FEATURE_CLASSES, DIRECTIONS))

    def draw(count: int) -> NDArray[np.float32]:
        within = WITHIN * random.standard_normal((count, DIRECTIONS))
        places = classes[random.integers(0, FEATURE_CLASSES, count)] + within
        noise = DISTURBED * random.standard_normal((count, M * D))
        return (places @ directions + noise).astype(np.float32)

    pq = faiss.ProductQuantizer(M * D, M, 4)
    pq.train(draw(LEARNT_FROM))
    Z = faiss.vector_to_array(pq.centroids).reshape(M, 16, D)
    step = 1 << 15
    parts = [pq.compute_codes(draw(min(step, rows - first))) for first in range(0, rows, step)]
    vectors = draw(REPEATS * Q).astype(np.float64)
    return Workload(Z, np.concatenate(parts), (unit(vectors) * M**0.5).reshape(REPEATS, Q, M, D))


def of_photographs(source: Source, features: NDArray[np.float32], M: int) -> Workload:
    """Encodes features (N,E) of photographs by the first M codebooks; some are queries."""
    codebook = source.artifact.codebook.first(M)
    d = codebook.Z.shape[2]
    with torch.no_grad():
        projected = source.network.get_submodule("project")(torch.from_numpy(features)).numpy()
    order = np.random.default_rng(0).permutation(len(projected))
    asked, stored = np.split(projected[order][:, : M * d], [REPEATS * 64])
    return Workload(
        codebook.Z if codebook.means is None else codebook.means,
        pack(codebook.encode(stored)),
        unit(asked.reshape(REPEATS, 64, M, d)),
    )


def faiss_pq(w: Workload) -> faiss.IndexPQ:
    """Returns an IndexPQ with our codewords and codes; the layout of its 4-bit codes is ours."""
    index = faiss.IndexPQ(w.M * w.d, w.M, 4, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(w.Z.ravel(), index.pq.centroids)
    index.is_trained = True
    index.add_sa_codes(w.packed)
    return index


def medians(searches: dict[str, QuerySearch], sets: int = REPEATS) -> dict[str, float]:
    """Returns the median milliseconds of each search over the sets of queries.

    Every search goes through the sets ROUNDS times. A round may stop after REPEATS sets, when
    ENOUGH_SECONDS have passed. Each begins with calls that are not counted, because the other
    searches have used the caches.
    """
    times: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(ROUNDS):
        for name, search in searches.items():
            begun, calls = time.perf_counter(), 0
            while calls < WARM_CALLS and time.perf_counter() - begun < WARM_SECONDS:
                search(calls % sets)
                calls += 1
            begun = time.perf_counter()
            for n in range(sets):
                started = time.perf_counter()
                search(n)
                times[name].append((time.perf_counter() - started) * 1000)
                if n >= REPEATS and time.perf_counter() - begun > ENOUGH_SECONDS:
                    break
    return {name: statistics.median(found) for name, found in times.items()}


def once(search: Callable[[], object]) -> float:
    """Returns the milliseconds of a single call; for searches that take seconds."""
    started = time.perf_counter()
    search()
    return (time.perf_counter() - started) * 1000


def recall(found: NDArray[np.int64], w: Workload, exact: NDArray[np.float32], n: int = 0) -> float:
    """Returns the share of hits whose exact score is at least the k-th, so that ties count.

    ``found`` (Q,k): rows that a method found for the n-th set of queries. ``exact`` (Q,k): scores
    of the exact hits.
    """
    packed = w.packed[np.maximum(found.ravel(), 0)]
    codes = unpack(packed, w.M).reshape(*found.shape, w.M)
    luts = w.luts[n]
    scores = sum(luts[np.arange(len(luts))[:, None], m, codes[..., m]] for m in range(w.M))
    return float(((scores >= exact[:, -1:] - 1e-6) & (found >= 0)).mean())


def compare(kind: str, rows: int, M: int) -> list[dict[str, Any]]:
    """Compares our engines and faiss's on codes that are drawn."""
    begun = time.perf_counter()
    w = make_workload(kind, rows, M, 64)
    return measured(w, kind, time.perf_counter() - begun)


def measured(w: Workload, kind: str, drawn_s: float) -> list[dict[str, Any]]:
    """Compares our engines and faiss's on one set of codes, with one and with 64 queries."""
    rows, M = len(w.packed), w.M
    begun = time.perf_counter()
    native = NativeScanner(w.packed, M, threads=1)
    build_s = time.perf_counter() - begun
    scanners: dict[str, Any] = {"native": native}
    if native.instructions.startswith("avx512"):
        scanners["native, avx2"] = NativeScanner(w.packed, M, threads=1, instructions="avx2")
    reference = ReferenceScanner(w.packed[:SLOW_ROWS], M)
    pq = faiss_pq(w)
    fast = faiss.IndexPQFastScan(pq)
    refined = faiss.IndexRefine(fast, pq)
    refined.k_factor = 4
    found = []
    for Q in (1, 64):
        # The times of single queries differ more than those of sets, so more are measured.
        luts = w.luts if Q > 1 else w.luts[0][:, None]
        vectors = w.vectors if Q > 1 else w.vectors[0][:, None]
        vectors = vectors.reshape(len(luts), Q, -1).copy()
        for k in (10, 100):
            searches: dict[str, QuerySearch] = {
                name: lambda n, s=scanner, luts=luts, k=k: s.search(luts[n], k)
                for name, scanner in scanners.items()
            }
            peers = {"FastScan": fast, "FastScan, refined": refined}
            if Q == 1 and rows <= SLOW_ROWS:
                searches["reference"] = lambda n, luts=luts, k=k: reference.search(luts[n], k)
                peers["IndexPQ"] = pq
            searches |= {
                name: lambda n, i=index, vectors=vectors, k=k: i.search(vectors[n], k)
                for name, index in peers.items()
            }
            ms = medians(searches, len(luts))
            if Q > 1 and rows <= CHECKED_ROWS and k == 100:
                ms["reference"] = once(lambda luts=luts, k=k: reference.search(luts[0], k))
                ms["IndexPQ"] = once(lambda vectors=vectors, k=k: pq.search(vectors[0], k))
            hits, scores = native.search(luts[0], k)
            if rows <= CHECKED_ROWS:
                expected = reference.search(luts[0][:4], k)
                assert (hits[:4] == expected[0]).all() and (scores[:4] == expected[1]).all()
            part = Workload(w.Z, w.packed, vectors.reshape(len(luts), Q, M, w.d))
            recalls = {
                name: statistics.mean(
                    recall(peers[name].search(vectors[n], k)[1], part, native.search(lut, k)[1], n)
                    for n, lut in enumerate(luts)
                )
                for name in ("FastScan", "FastScan, refined")
            }
            found.append(
                {
                    "codes": kind, "rows": rows, "M": M, "Q": Q, "k": k,
                    "ms_a_query": {name: round(value / Q, 4) for name, value in ms.items()},
                    "codes_a_second": {n: round(rows * Q / v * 1000) for n, v in ms.items()},
                    "times_FastScan": {
                        n: round(ms["FastScan"] / v, 2) for n, v in ms.items() if n != "FastScan"
                    },
                    "recall": {name: round(value, 4) for name, value in recalls.items()},
                    "build_s": round(build_s, 2), "drawn_s": round(drawn_s, 1),
                    "bytes_a_code": round(native.bytes / rows, 2),
                }
            )  # fmt: skip
    return found


def compare_photographs(folders: list[str], path: Path) -> None:
    """Compares the engines on the codes of the images in folders, and writes the results."""
    source = read(DEFAULT)
    features = Features(source)
    found = np.concatenate(
        [features.of_folder(Folder.parse(text, source.size)) for text in folders]
    )
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    lines = []
    for M in LONG_M:
        begun = time.perf_counter()
        w = of_photographs(source, found, M)
        lines += measured(w, "photographs", time.perf_counter() - begun)
    save({"same_codes": lines, "machine": describe(), "versions": versions()}, path)


def compare_floats(rows: int) -> list[dict[str, Any]]:
    """Compares the scan of our codes to searches of the vectors that they decode to."""
    M, k = 12, 100
    w = make_workload("clusters", rows, M, 1)
    native, luts = NativeScanner(w.packed, M, threads=1), w.luts
    vectors = faiss_pq(w).sa_decode(w.packed)
    queries = w.vectors.reshape(REPEATS, 1, -1)
    exact = [native.search(tables, k)[1] for tables in luts]
    searches: dict[str, QuerySearch] = {"native": lambda n: native.search(luts[n], k)}
    build: dict[str, float] = {}

    def add(name: str, make: Callable[[], Callable[[NDArray[np.float32]], Any]]) -> None:
        begun = time.perf_counter()
        search = make()
        build[name] = round(time.perf_counter() - begun, 1)
        searches[name] = lambda n: search(queries[n])

    def flat() -> Callable[[NDArray[np.float32]], Any]:
        index = faiss.IndexFlatIP(M * D)
        index.add(vectors)
        return lambda q: index.search(q, k)[1]

    def hnsw() -> Callable[[NDArray[np.float32]], Any]:
        index = faiss.IndexHNSWFlat(M * D, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = 256
        index.add(vectors)
        return lambda q: index.search(q, k)[1]

    def scann() -> Callable[[NDArray[np.float32]], Any]:
        from scann import scann_ops_pybind

        builder = scann_ops_pybind.builder(vectors, k, "dot_product").score_ah(D)
        index = builder.set_n_training_threads(1).build()
        return lambda q: index.search_batched(q)[0].astype(np.int64)

    add("FlatIP, floats", flat)
    add("HNSWFlat, floats", hnsw)
    try:
        add("ScaNN, asymmetric hashing", scann)
    except ImportError as error:
        print(f"ScaNN is left out: {error}", file=sys.stderr)
    ms = medians(searches)
    recalls = {
        name: round(
            statistics.mean(
                recall(np.asarray(searches[name](n)), w, exact[n], n) for n in range(REPEATS)
            ),
            4,
        )
        for name in searches
        if name != "native"
    }
    return [
        {
            "codes": "clusters", "rows": rows, "M": M, "Q": 1, "k": k,
            "ms_a_query": {name: round(value, 4) for name, value in ms.items()},
            "times_slower": {n: round(v / ms["native"], 1) for n, v in ms.items() if n != "native"},
            "recall": recalls, "build_s": build,
        }
    ]  # fmt: skip


def compare_masks(rows: int, M: int) -> list[dict[str, Any]]:
    """Measures searches that only a share of the rows is eligible for.

    The eligible rows are given by an array that is different in every search ("new"), by the same
    array ("again"), or by the same Mask ("known"). first_s: the seconds of the first search with
    the Mask.
    """
    w = make_workload("uniform", rows, M, 1)
    native, luts = NativeScanner(w.packed, M, threads=1), w.luts
    random = np.random.default_rng(1)
    ms = medians({"all": lambda n: native.search(luts[n], 100)})
    first_s = {}
    for share in (0.5, 0.1, 0.03, 0.01, 0.003, 0.001):
        arrays = [random.random(rows) < share for _ in range(REPEATS)]
        again, known, new = random.random(rows) < share, Mask(arrays[0]), cycle(arrays)
        start = time.perf_counter()
        native.search(luts[0], 100, known)
        first_s[str(share)] = round(time.perf_counter() - start, 3)
        for n in range(3):
            native.search(luts[n], 100, again)
        for thread in threading.enumerate():
            if thread.name == "scan-sort":
                thread.join()
        searches: dict[str, QuerySearch] = {
            "new": lambda n, masks=new: native.search(luts[n], 100, next(masks)),  # type: ignore[misc]
            "again": lambda n, mask=again: native.search(luts[n], 100, mask),  # type: ignore[misc]
            "known": lambda n, mask=known: native.search(luts[n], 100, mask),  # type: ignore[misc]
        }
        ms |= {f"{share}, {name}": value for name, value in medians(searches).items()}
    return [
        {
            "rows": rows, "M": M, "k": 100, "first_s": first_s,
            "ms": {n: round(v, 4) for n, v in ms.items()},
        }
    ]  # fmt: skip


def compare_depths(rows: int, M: int) -> list[dict[str, Any]]:
    """Measures searches for a page of hits that begins after DEPTHS earlier hits."""
    w = make_workload("uniform", rows, M, 1)
    native, lut = NativeScanner(w.packed, M, threads=1), w.luts[0]
    searches: dict[str, QuerySearch] = {"0": lambda n: native.search(lut, 100)}
    for depth in DEPTHS:
        hits, scores = native.search(lut, min(depth, rows))
        after = float(scores[0, -1]), int(hits[0, -1])
        searches[str(depth)] = lambda n, after=after: native.search(lut, 100, None, after)
    ms = {name: round(value, 4) for name, value in medians(searches).items()}
    return [{"rows": rows, "M": M, "k": 100, "ms_at_depth": ms}]


def versions() -> dict[str, str]:
    """Returns the versions of the measured libraries, and the commit of this repository."""
    found = {"torch": str(torch.__version__), "faiss": faiss.__version__}
    found["commit"] = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["scann"] = importlib.metadata.version("scann")
    return found


def report_rss(rows: int, M: int) -> None:
    """Prints by how many bytes per row an index of uniform codes makes this process grow."""
    NativeScanner(np.zeros((100_000, (M + 1) // 2), np.uint8), M)  # loads the libraries first
    before = resident_bytes()
    packed = np.random.default_rng(0).integers(0, 256, (rows, (M + 1) // 2), dtype=np.uint8)
    kept = NativeScanner(packed, M, threads=1), Seqs(np.arange(1, rows + 1))
    del packed
    print(
        json.dumps(
            {"rows": rows, "M": M, "bytes_a_row": round((resident_bytes() - before) / rows, 2)}
        )
    )
    assert len(kept[0]) == rows


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws how many times as fast as FastScan our scan is, in a panel per number of rows."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    sizes = sorted({line["rows"] for line in results["same_codes"]})
    figure, axes = pyplot.subplots(
        1, len(sizes), figsize=(6.5 * len(sizes), 7), squeeze=False, layout="constrained"
    )
    colours = {"uniform": "#8a8f98", "clusters": "#2f6fde", "real": "#e08a1e"}
    colours["features"] = "#3a9d6e"
    for axis, rows in zip(axes[0], sizes, strict=True):
        lines = [x for x in results["same_codes"] if x["rows"] == rows and x["k"] == 100]
        lines.sort(key=lambda x: (x["codes"] != "real", x["codes"] != "clusters", -x["M"], -x["Q"]))
        names = [f"{x['codes']}, {4 * x['M']} bits, Q = {x['Q']}" for x in lines]
        values = [x["times_FastScan"]["native"] for x in lines]
        bars = axis.barh(names, values, color=[colours[x["codes"]] for x in lines])
        axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xlim(0.7, max(values) * 3)
        axis.set_title(f"{rows:,} codes, k = 100", fontsize=11)
        axis.set_xlabel("times as fast as faiss IndexPQFastScan, one thread")
        plots.hide_frame(axis)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1_000_000, 10_000_000], help="numbers of codes"
    )
    parser.add_argument(
        "--M", type=int, nargs="+", default=[3, 6, 8, 12], help="numbers of 4-bit sub-codes"
    )
    parser.add_argument(
        "--codes", nargs="+", choices=sorted({*KINDS, *LONG_KINDS}), default=KINDS,
        help="sets of codes (all but features)",
    )  # fmt: skip
    parser.add_argument(
        "--long-rows", type=int, nargs="*", default=[LONG_ROWS], help="numbers of long codes"
    )
    parser.add_argument(
        "--float-rows", type=int, nargs="*", default=[FLOAT_ROWS], help="numbers of float vectors"
    )
    parser.add_argument(
        "--photographs", action="append", metavar="DIR[@PIXELS]",
        help="measure long codes of these images instead",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--rss", action="store_true", help="only print the memory per row")
    options = parser.parse_args()
    if options.rss:
        report_rss(options.rows[0], options.M[0])
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if options.photographs:
        compare_photographs(options.photographs, options.out / "scan-photographs.json")
        return
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    cases = [(kind, rows, M) for rows in options.rows for M in options.M
             for kind in options.codes]  # fmt: skip
    cases += [(kind, rows, M) for rows in options.long_rows for M in LONG_M for kind in LONG_KINDS]
    command = [sys.executable, "-m", "bench.scan", "--rss", "--M", "12", "--rows"]
    memory = [
        json.loads(subprocess.run([*command, str(rows)], stdout=subprocess.PIPE, check=True).stdout)
        for rows in options.rows
    ]
    results = {
        "same_codes": [line for case in tqdm(cases, desc="codes") for line in compare(*case)],
        "masks": compare_masks(max(options.rows), 12),
        "depths": compare_depths(max(options.rows), 12),
        "floats": [line for rows in options.float_rows for line in compare_floats(rows)],
        "memory": memory,
        "repeats": REPEATS,
        "instructions": NativeScanner(np.zeros((0, 1), np.uint8), 1).instructions,
        "machine": describe(),
        "versions": versions(),
    }
    (options.out / "scan.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(
        results, ROOT / "docs" / "scan.png" if options.out == RESULTS else options.out / "scan.png"
    )
    print(f"wrote {options.out / 'scan.json'}")


if __name__ == "__main__":
    main()
