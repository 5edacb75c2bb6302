"""`python -m service import` beside decoding and encoding alone, on the same pictures.

    python -m bench.imports --data CIFAR10                  12,000 pictures, about 10 minutes
    python -m bench.imports --data FOLDER --pictures 500    any folder of pictures

As they are, and as JPEGs of 640×480 drawn from a thousand of them, with the grain of a camera.
Alone: a pool decodes as many pictures at a time as the service does, and the shipped network
encodes 64 at a time, as the import has it; what comes of it is dropped. The import also
reads the folder anew, hashes, looks for what is stored already, and commits to SQLite; with
originals kept in a folder, and without. Its time is that of its job less that of an empty
folder's, which is start-up. Rounds take turns. With GOMP_SPINCOUNT=1000 in the environment, as
the import sets it. Nothing is removed before the end: ext4 steps over the inodes of files that
were removed in the last minutes, one by one, and so is slow to make new files.
Results go to bench/results/imports.json.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from bench.database import sqlite_url
from bench.machine import describe
from bench.output import RESULTS, save
from bench.photographs import enlarged
from harness import commands
from harness.models import SHIPPED
from service.database.store import Store
from service.models import artifacts
from service.settings import IMPORT_BATCH, Settings

DRAWN = 1000


def alone(files: list[Path]) -> float:
    """Seconds, the loading of torch and of the model not among them."""
    model = artifacts.use(SHIPPED, torch.device("cpu"))
    started = time.perf_counter()
    with ThreadPoolExecutor(Settings().decode_threads) as pool:
        for first in range(0, len(files), IMPORT_BATCH):
            batch = files[first : first + IMPORT_BATCH]
            pixels = pool.map(lambda file: model.read(file.read_bytes()), batch)
            model.encode(np.stack(list(pixels)))
    return time.perf_counter() - started


def imported(folder: Path, pictures: int, image_store: str, place: Path) -> float:
    """Seconds of the job, in a new database in ``place``."""
    place.mkdir()
    url = sqlite_url(place)
    settings = {"database_url": url, "model": SHIPPED, "image_store": image_store}
    commands.service("import", str(folder), folder=place, **settings)
    store = Store(url)
    job = store.jobs.page(1)[0]
    store.close()
    assert (job.done, job.failed) == (pictures, 0), job
    return job.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=12_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = (path for path in options.data.rglob("*.*") if path.suffix in (".jpg", ".png", ".webp"))
    files = list(islice(found, options.pictures))
    results: dict[str, object] = {"machine": describe(), "pictures": len(files)}
    with tempfile.TemporaryDirectory() as name:
        for size, make in (("as they are", copy), ("640×480", enlarge)):
            folder = Path(name) / size
            folder.mkdir()
            results[size] = compare(make(files, folder), folder, options.rounds)
    save(results, RESULTS / "imports.json", indent=2)


def copy(files: list[Path], folder: Path) -> Path:
    pictures = folder / "pictures"
    pictures.mkdir()
    for n, path in enumerate(files):
        shutil.copy(path, pictures / f"{n:06}{path.suffix}")
    return pictures


def enlarge(files: list[Path], folder: Path) -> Path:
    """Some of them drawn large, each several times: with other bytes behind the same pixels."""
    pictures = folder / "pictures"
    pictures.mkdir()
    large = [enlarged(path, 640, 480) for path in tqdm(files[:DRAWN], desc="drawing")]
    for n in range(len(files)):
        (pictures / f"{n:06}.jpg").write_bytes(large[n % len(large)] + n.to_bytes(4))
    return pictures


def compare(pictures: Path, folder: Path, rounds: int) -> dict[str, object]:
    files = sorted(pictures.iterdir())
    seconds: dict[str, list[float]] = {"alone": [], "none": [], "images": []}
    empty = folder / "empty"
    empty.mkdir()
    start = statistics.median(
        imported(empty, 0, "none", folder / f"start-{n}") for n in range(rounds)
    )
    for n in tqdm(range(rounds)):
        seconds["alone"].append(alone(files))
        for store in ("none", "images"):
            place = folder / f"{store}-{n}"
            seconds[store].append(imported(pictures, len(files), store, place) - start)
    median = {what: statistics.median(values) for what, values in seconds.items()}
    return {
        "start_s": round(start, 2),
        "pictures_a_second": {w: round(len(files) / value, 1) for w, value in median.items()},
        "share_of_alone": {
            "without originals": round(median["alone"] / median["none"], 3),
            "with originals": round(median["alone"] / median["images"], 3),
        },
        "seconds": {
            what: [round(value, 2) for value in all_of] for what, all_of in seconds.items()
        },
    }


if __name__ == "__main__":
    main()
