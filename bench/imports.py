"""Compares `python -m service import` to decoding and encoding the same images alone.

    python -m bench.imports --data FOLDER                   12,000 images, about 20 minutes
    python -m bench.imports --data CIFAR10 --model models/cifar10

The images are imported as they are, and as 640×480 JPEGs that are made from a thousand of them.
Alone means that a pool decodes as many images at a time as the service does, the model
encodes 64 at a time, as the import does, and the codes are dropped. The import also reads the
folder, hashes the files, looks for images that are stored already, and commits to SQLite. It is
measured with originals in a folder and without. Its time is the time of its job minus that of the
job of an empty folder, which is start-up. They are measured alternately. Set GOMP_SPINCOUNT=1000 in
the environment, as the import does. No file is deleted before the end, because ext4 creates files
slowly for some minutes after others were deleted. Results are written to
bench/results/imports.json.
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
from tqdm import tqdm

from bench.database import sqlite_url
from bench.machine import describe
from bench.output import RESULTS, save
from bench.photographs import scaled
from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.model.model import Model
from harness import commands
from harness.models import DEFAULT
from service.database.store import Store
from service.jobs.importing import IMPORT_BATCH
from service.settings import Settings

PRECISION = Settings().precision
ENLARGED = 1000  # different images among the enlarged ones


def alone(files: list[Path], model: Model) -> float:
    """Returns the seconds to decode and encode the files, without loading the model."""
    started = time.perf_counter()
    with ThreadPoolExecutor(Settings().decode_threads) as pool:
        for first in range(0, len(files), IMPORT_BATCH):
            batch = files[first : first + IMPORT_BATCH]
            pixels = pool.map(lambda file: model.read(file.read_bytes()), batch)
            model.encode(np.stack(list(pixels)))
    return time.perf_counter() - started


def imported(folder: Path, images: int, image_store: str, place: Path, model: Path) -> float:
    """Imports a folder into a new database, and returns the seconds of the job.

    ``images``: how many images the job must import. ``image_store``: see the setting of the
    service. ``place``: folder to create for the database and the originals.
    """
    place.mkdir()
    url = sqlite_url(place)
    settings = {
        "database_url": url,
        "model": model,
        "image_store": image_store,
        "precision": PRECISION,
    }
    commands.service("import", str(folder), folder=place, **settings)
    store = Store(url)
    job = store.jobs.page(1)[0]
    store.close()
    assert (job.done, job.failed) == (images, 0), job
    return job.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--pictures", type=int, default=12_000, help="most images to import")
    parser.add_argument("--model", type=Path, default=DEFAULT, help="(models/photos)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    options = parser.parse_args()
    found = (path for path in options.data.rglob("*.*") if path.suffix in (".jpg", ".png", ".webp"))
    files = list(islice(found, options.pictures))
    results: dict[str, object] = {"machine": describe(), "model": options.model.name}
    results["pictures"] = len(files)
    with tempfile.TemporaryDirectory() as name:
        for size, make in (("as they are", copy), ("640×480", enlarge)):
            folder = Path(name) / size
            folder.mkdir()
            results[size] = compare(make(files, folder), folder, options.rounds, options.model)
    save(results, RESULTS / "imports.json", indent=2)


def copy(files: list[Path], folder: Path) -> Path:
    """Copies the files to a new folder below ``folder``, which is returned."""
    images = folder / "images-to-import"
    images.mkdir()
    for n, path in enumerate(files):
        shutil.copy(path, images / f"{n:06}{path.suffix}")
    return images


def enlarge(files: list[Path], folder: Path) -> Path:
    """Writes as many 640×480 JPEGs to a new folder below ``folder``, which is returned.

    Some have the same pixels, but no two files are equal: each ends in its own number.
    """
    images = folder / "images-to-import"
    images.mkdir()
    large = [scaled(path, 640, 480) for path in tqdm(files[:ENLARGED], desc="enlarging")]
    for n in range(len(files)):
        (images / f"{n:06}.jpg").write_bytes(large[n % len(large)] + n.to_bytes(4))
    return images


def compare(images: Path, folder: Path, rounds: int, model: Path) -> dict[str, object]:
    """Measures the import of the folder ``images``; databases are created in ``folder``."""
    files = sorted(images.iterdir())
    seconds: dict[str, list[float]] = {"alone": [], "none": [], "images": []}
    loaded = engines.load(model, Options(precision=PRECISION))
    empty = folder / "empty"
    empty.mkdir()
    start = statistics.median(
        imported(empty, 0, "none", folder / f"start-{n}", model) for n in range(rounds)
    )
    for n in tqdm(range(rounds)):
        seconds["alone"].append(alone(files, loaded))
        for store in ("none", "images"):
            place = folder / f"{store}-{n}"
            seconds[store].append(imported(images, len(files), store, place, model) - start)
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
