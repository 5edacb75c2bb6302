"""Measures filtered searches at a million images, on SQLite and Postgres.

    python -m bench.filters                      about 10 minutes
    python -m bench.filters --rows 100000

The codes are random, with the length of the default model's, and the filters choose half, a
hundredth and a thousandth of the images, by numbers and by strings. Times are those of the search
behind a look-up table: the scan, and the hits from the database. For each filter: its first use,
the median of later uses beside that of unfiltered searches in the same rounds, the share of the
exact hits that were found (by a scan of the chosen codes alone), and the memory that it may keep.
Then the two fields are declared: how many images a second are filled, and the first use again.
Results are written to bench/results/filters.json.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bench.database import fill
from bench.filters.searches import K, Searches, databases, filters, metadata
from bench.machine import describe
from bench.output import RESULTS, save
from gpq.model import artifact
from harness.models import DEFAULT
from service.filters.grammar import parse
from service.filters.selection import EVERYTHING, Selection
from service.filters.values import field_values

QUERIES = 16  # different look-up tables
MIB = 2**20


def measure(searches: Searches, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    luts = rng.uniform(-1, 1, (QUERIES, searches.M, 16)).astype(np.float32) / searches.M
    searches.ids(luts[0], EVERYTHING)
    found: dict[str, Any] = {}
    for name, value in tqdm(filters().items()):
        selection = Selection(parse(value))
        first = first_use(searches, luts[0], selection)
        times: dict[str, list[float]] = {"filtered": [], "unfiltered": []}
        for turn in range(rounds):
            lut = luts[turn % QUERIES]
            for kind, chosen in (("filtered", selection), ("unfiltered", EVERYTHING)):
                began = time.perf_counter()
                searches.ids(lut, chosen)
                times[kind].append(time.perf_counter() - began)
        kept = searches.masks.find(selection, searches.model)
        rows = kept.mask.rows
        same = [searches.ids(lut, selection) == searches.expected(lut, rows) for lut in luts[:4]]
        medians = {kind: statistics.median(seconds) for kind, seconds in times.items()}
        found[name] = {
            "images": int(np.count_nonzero(rows)),
            "first_ms": first,
            "filtered_ms": round(1000 * medians["filtered"], 2),
            "unfiltered_ms": round(1000 * medians["unfiltered"], 2),
            "ratio": round(medians["filtered"] / medians["unfiltered"], 3),
            "exact": sum(same) / len(same),
            "kept_mb": round(kept.bytes / MIB, 1),
        }
        print(name, found[name], flush=True)
    return found


def first_use(searches: Searches, lut: NDArray[np.float32], selection: Selection) -> int:
    """Returns the milliseconds of a search with a selection that is new."""
    with suppress(KeyError):
        searches.masks.forget(selection, searches.masks._kept[selection])
    began = time.perf_counter()
    searches.ids(lut, selection)
    return round(1000 * (time.perf_counter() - began))


def measure_fields(searches: Searches, rows: int) -> dict[str, Any]:
    """Declares the fields of the filters, and measures first uses."""
    lut = np.zeros((searches.M, 16), dtype=np.float32)
    began = time.perf_counter()
    for name in ("rank", "brand"):
        searches.store.fields.add(name)
    while searches.store.fields.advance(field_values):
        pass
    seconds = time.perf_counter() - began
    times = {
        name: statistics.median(first_use(searches, lut, Selection(parse(value))) for _ in range(5))
        for name, value in filters().items()
    }
    return {"filled_a_second": round(2 * rows / seconds), "first_ms": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--out", type=Path, default=RESULTS / "filters.json")
    options = parser.parse_args()
    model = artifact.load(DEFAULT)
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        databases(Path(folder), options.databases) as urls,
    ):
        for kind, url in urls.items():
            fill(url, options.rows, DEFAULT, metadata)
            with closing(Searches(url, model.codebook.M, model.id)) as searches:
                found[kind] = measure(searches, options.rounds)
                found[kind] |= {"fields": measure_fields(searches, options.rows)}
    save({"machine": describe(), "rows": options.rows, "k": K, **found}, options.out)


if __name__ == "__main__":
    main()
