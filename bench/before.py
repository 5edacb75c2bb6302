"""Compares this checkout to another one, of an earlier commit, by searches and imports.

    git worktree add /tmp/before COMMIT; (cd /tmp/before; python setup.py -q build_ext --inplace)
    python -m bench.before /tmp/before                      about 8 minutes
    python -m bench.before /tmp/before --images FOLDER      with imports of your images

Both services run at the same time, over the same stored images, and are measured in turns. An image
is posted to POST /search by autocannon. An import reads a folder of images, by default the examples
four times, and keeps the originals. Results are written to bench/results/before.json.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tqdm import tqdm

from bench import load, photographs
from bench.database import sqlite_url
from bench.imports import imported
from bench.machine import describe
from bench.output import RESULTS, save
from harness import ROOT, processes
from harness.images import EXAMPLES
from harness.models import DEFAULT
from harness.server import Server

NOW, BEFORE = "now", "before"
COPIES = 4  # of the example images


@contextmanager
def code_of(root: Path | None) -> Iterator[None]:
    """Runs the processes that start meanwhile from another checkout."""
    if root is None:
        yield
        return
    processes.import_path.insert(0, str(root))
    try:
        yield
    finally:
        processes.import_path.pop(0)


def fill(folder: Path, rows: int, root: Path) -> None:
    """Fills a database by the code of a checkout, which an older one could not read otherwise."""
    program = "import sys; from bench.database import fill; from pathlib import Path; "
    program += "fill(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))"
    subprocess.run(
        [sys.executable, "-c", program, sqlite_url(folder), str(rows), str(DEFAULT)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
    )


def searches(
    servers: dict[str, Server], file: Path, seconds: float, rounds: int
) -> dict[str, list[float]]:
    """Returns the replies a second of each server in every round."""
    found: dict[str, list[float]] = {name: [] for name in servers}
    for n in range(rounds):
        names = list(servers) if n % 2 else list(reversed(servers))
        for name in names:
            rate = load.capacity(name, f"{servers[name].url}/search", file, seconds)
            found[name].append(rate)
    return found


def copies(folder: Path, images: Path | None) -> Path:
    """Returns a folder of images to import; those made of an example differ in their last bytes."""
    if images is not None:
        return images
    made = folder / "images"
    made.mkdir()
    for n in range(COPIES):
        for file in EXAMPLES.rglob("*.jpg"):
            name = f"{n}-{file.parent.name}-{file.name}"
            (made / name).write_bytes(file.read_bytes() + n.to_bytes(4))
    return made


def imports(
    checkouts: dict[str, Path | None], folder: Path, images: Path, rounds: int
) -> dict[str, list[float]]:
    """Returns the images a second of each checkout in every round, without its start-up."""
    count = sum(1 for path in images.rglob("*") if path.is_file())
    empty = folder / "empty"
    empty.mkdir()
    found: dict[str, list[float]] = {name: [] for name in checkouts}
    for n in tqdm(range(rounds), desc="imports"):
        for name, root in checkouts.items():
            with code_of(root):
                start = imported(empty, 0, "none", folder / f"start-{name}-{n}", DEFAULT)
                place = folder / f"{name}-{n}"
                seconds = imported(images, count, "images", place, DEFAULT) - start
            found[name].append(count / seconds)
            shutil.rmtree(place / "images")
    return found


def summary(rates: dict[str, list[float]]) -> dict[str, object]:
    median = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "a_second": {name: round(value, 1) for name, value in median.items()},
        "rounds": {name: [round(each, 1) for each in values] for name, values in rates.items()},
        "now_to_before": round(median[NOW] / median[BEFORE], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="another checkout, with its extension built")
    parser.add_argument("--rows", type=int, default=100_000, help="number of stored images")
    parser.add_argument("--seconds", type=float, default=5, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--images", type=Path, help="folder of images to import")
    options = parser.parse_args()
    load.require()
    checkouts = {NOW: None, BEFORE: options.before.resolve()}
    results: dict[str, object] = {"machine": describe(), "rows": options.rows}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["searches"] = compare_searches(checkouts, folder, options)
        images = copies(folder, options.images)
        rates = imports(checkouts, folder, images, options.rounds)
        results["imports"] = summary(rates)
    save(results, RESULTS / "before.json")


def compare_searches(
    checkouts: dict[str, Path | None], folder: Path, options: argparse.Namespace
) -> dict[str, object]:
    file, found = folder / "image.jpg", {}
    for name in checkouts:
        (folder / name).mkdir()
    with ExitStack() as stack:
        servers = {}
        for name, root in checkouts.items():
            fill(folder / name, options.rows, root or ROOT)
            settings = {"database_url": sqlite_url(folder / name), "image_store": "none"}
            with code_of(root):
                service = Server(folder / name, model=DEFAULT, **settings)
                servers[name] = stack.enter_context(service)
        for size, image in tqdm(photographs.by_size().items(), desc="searches"):
            file.write_bytes(image)
            found[size] = summary(searches(servers, file, options.seconds, options.rounds))
    return found


if __name__ == "__main__":
    main()
