"""Measures how well copies of images are found, and what it costs.

    python -m bench.copies --data clothing --more places128 birds     about 8 minutes

The catalogue consists of the images of ``--data``. For each kind of change, some of them are
changed, and the shares are written of those whose original is within the default distance by the
perceptual hash (PDQ), turned in any way, and by the code of the default model: at a score above
which one of a million pairs of images lies, and as the nearest image. Pairs of different images
that count as copies are counted per million pairs, by the hash also among the images of ``--more``;
the files of such pairs are listed, because data sets have real copies. Then the time of a search
among a million random hashes is measured, and that of an import with hashes and without. Results
are written to bench/results/copies.json.
"""

import argparse
import io
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance
from tqdm import tqdm

from bench.machine import describe
from bench.output import RESULTS, save
from gpq import scan
from gpq.engine import engines
from gpq.model.codebook import pack
from gpq.pixels import decode
from gpq.pixels.perceptual import HASH_BYTES, pdq
from gpq.system.folders import files_below
from harness import ROOT
from harness.images import encoded
from harness.models import DEFAULT
from harness.processes import environment
from service.copies.hashes import CODEBOOKS, DEFAULT_DISTANCE, distance_tables, nearest_turn
from service.copies.index import nearest, within
from service.database.copies import LEAST_QUALITY
from service.index.index import Codes, Index

CHANGED = 300  # images
MILLION = 1_000_000
SEARCHES = 50
ROUNDS = 3  # of imports
PHOTOGRAPH = (2000, 1500)
SHOWN_PAIRS = 12

Change = Callable[[Image.Image], Image.Image]


def _jpeg(quality: int) -> Change:
    return lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality)))


def _cropped(share: float) -> Change:
    """Cuts a share of the width and of the height away, half of it on each side."""

    def crop(image: Image.Image) -> Image.Image:
        w, h = image.size
        x, y = round(w * share / 2), round(h * share / 2)
        return image.crop((x, y, w - x, h - y))

    return crop


def _scaled(factor: float) -> Change:
    return lambda image: image.resize(
        (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    )


def _bright(factor: float) -> Change:
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def _captioned(share: float) -> Change:
    """Adds a white bar with a text below the image."""

    def caption(image: Image.Image) -> Image.Image:
        bar = max(12, round(image.height * share))
        whole = Image.new("RGB", (image.width, image.height + bar), "white")
        whole.paste(image)
        ImageDraw.Draw(whole).text((4, image.height + 1), "NOW 20 % OFF", fill="black")
        return whole

    return caption


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


CHANGES: dict[str, Change] = {
    "crop 5 %": _cropped(0.05),
    "crop 10 %": _cropped(0.1),
    "crop 20 %": _cropped(0.2),
    "JPEG 20": _jpeg(20),
    "scaled to 1/2": _scaled(0.5),
    "scaled to 1/4": _scaled(0.25),
    "scaled to 2": _scaled(2),
    "brightness 0.6": _bright(0.6),
    "brightness 1.4": _bright(1.4),
    "mirrored": _mirrored,
    "turned by 90°": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "mirrored, 1/2, JPEG 50": lambda image: _jpeg(50)(_scaled(0.5)(_mirrored(image))),
    "caption bar of 10 %": _captioned(0.1),
}


def read(folders: Sequence[Path]) -> tuple[list[str], list[Image.Image]]:
    """Returns the names and the images (RGB) of all files below some folders."""
    paths = [path for folder in folders for path in files_below(folder)]
    images = [decode.load(path.read_bytes()) for path in tqdm(paths, desc="read")]
    return [f"{path.parent.name}/{path.name}" for path in paths], images


def hashes_of(images: Sequence[Image.Image]) -> tuple[NDArray[np.uint8], int]:
    """Returns the hashes (n,HASH_BYTES), and how many images are too plain."""
    made = [pdq(image) for image in tqdm(images, desc="hash")]
    plain = sum(quality < LEAST_QUALITY for _, quality in made)
    joined = b"".join(hash for hash, _ in made)
    return np.frombuffer(joined, np.uint8).reshape(-1, HASH_BYTES), plain


def pairs_by_hash(hashes: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Yields the pairs of images within the default distance, turned in any way."""
    index = Index("pdq", CODEBOOKS, "auto", Codes(np.arange(1, len(hashes) + 1), hashes))
    for n in tqdm(range(len(hashes)), desc="pairs"):
        found, _ = within(index, distance_tables(hashes[n].tobytes()), DEFAULT_DISTANCE, 10_000)
        yield from ((n, number - 1) for number in nearest(found) if number - 1 > n)


def by_hash(images: Sequence[Image.Image], hashes: NDArray[np.uint8]) -> dict[str, float]:
    """Returns the share of changed images whose original is within the distance, by change."""
    found = {}
    for name, change in CHANGES.items():
        near = 0
        for image, hash in zip(images, hashes, strict=True):
            (distance,), _ = nearest_turn(pdq(change(image).convert("RGB"))[0], [hash.tobytes()])
            near += bool(distance <= DEFAULT_DISTANCE)
        found[name] = round(near / len(images), 3)
    return found


class ByCode:
    """Compares images by the codes of the default model."""

    def __init__(self, images: Sequence[Image.Image]) -> None:
        self.model = engines.load(DEFAULT)
        pixels = [self.model.prepare(image) for image in images]
        parts = [
            self.model.features(np.stack(pixels[n : n + 8]))
            for n in tqdm(range(0, len(pixels), 8), desc="encode")
        ]
        self.features = np.concatenate(parts)
        codebook = self.model.codebook
        self.scanner = scan.build(pack(codebook.encode(self.features)), codebook.M)
        self.threshold = self._threshold()

    def _threshold(self) -> float:
        """Returns the score that one of a million ordered pairs of different images reaches."""
        count = len(self.features)
        most = count * (count - 1) // MILLION + 1
        best: list[float] = []
        for n in range(0, count, 32):
            luts = self.model.codebook.lut(self.features[n : n + 32])
            rows, scores = self.scanner.search(luts, most + 2)
            for q, (found, score) in enumerate(zip(rows, scores, strict=True)):
                best += score[found != n + q].tolist()
            best = sorted(best, reverse=True)[:most]
        return best[-1]

    def recall(self, images: Sequence[Image.Image], places: Sequence[int]) -> dict[str, Any]:
        """Returns, by change, the shares of originals above the threshold, and of those that are
        the nearest image."""
        found = {}
        for name, change in CHANGES.items():
            near = first = 0
            for image, place in zip(images, places, strict=True):
                pixels = self.model.prepare(change(image).convert("RGB"))
                lut = self.model.lut(pixels[None])
                rows, scores = self.scanner.search(lut, len(self.features))
                near += bool(scores[0][rows[0] == place][0] >= self.threshold)
                first += bool(rows[0][0] == place)
            found[name] = {
                "above_threshold": round(near / len(images), 3),
                "nearest": round(first / len(images), 3),
            }
        return found


def search_seconds() -> float:
    """Returns the median time of a search for the copies of one hash among a million others."""
    source = np.random.default_rng(1)
    hashes = source.integers(0, 256, (MILLION, HASH_BYTES), dtype=np.uint8)
    index = Index("pdq", CODEBOOKS, "auto", Codes(np.arange(1, MILLION + 1), hashes))
    times = []
    for n in range(SEARCHES):
        began = time.perf_counter()
        nearest(within(index, distance_tables(hashes[n].tobytes()), DEFAULT_DISTANCE, 10_000)[0])
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def import_seconds(folder: Path, copies: bool) -> float:
    """Returns the time of an import of a folder into a new catalogue."""
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "service", "import", str(folder)],
            cwd=place,
            env={**environment(model=DEFAULT), "GPQ_COPIES": str(copies), "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - began


def imports(images: Sequence[Image.Image]) -> dict[str, Any]:
    """Measures imports of small images and of photographs, with hashes and without, in turns."""
    with tempfile.TemporaryDirectory() as place:
        small, large = Path(place, "small"), Path(place, "large")
        for folder, count in ((small, 1000), (large, 200)):
            folder.mkdir()
            for n, image in enumerate(images[:count]):
                shown = image if folder == small else image.resize(PHOTOGRAPH)
                (folder / f"{n}.jpg").write_bytes(encoded(shown, "JPEG", quality=90))
        results = {}
        for folder in (small, large):
            without, with_hashes = [], []
            for _ in range(ROUNDS):
                without.append(import_seconds(folder, copies=False))
                with_hashes.append(import_seconds(folder, copies=True))
            count = sum(1 for _ in folder.iterdir())
            results[folder.name] = {
                "images": count,
                "without_s": round(statistics.median(without), 2),
                "with_s": round(statistics.median(with_hashes), 2),
                "ms_an_image": round(
                    1000 * (statistics.median(with_hashes) - statistics.median(without)) / count, 1
                ),
            }
        return results


def pairs(names: Sequence[str], hashes: NDArray[np.uint8]) -> dict[str, Any]:
    found = [*pairs_by_hash(hashes)]
    all_pairs = len(hashes) * (len(hashes) - 1) / 2
    return {
        "images": len(hashes),
        "pairs": len(found),
        "per_million_pairs": round(len(found) / all_pairs * MILLION, 3),
        "first": [f"{names[n]} = {names[m]}" for n, m in found[:SHOWN_PAIRS]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="folders, for pairs only")
    parser.add_argument("--out", type=Path, default=RESULTS / "copies.json")
    options = parser.parse_args()
    names, images = read([options.data])
    hashes, plain = hashes_of(images)
    places = random.Random(1).sample(range(len(images)), min(CHANGED, len(images)))
    changed = [images[place] for place in places]
    results: dict[str, Any] = {
        "machine": describe(),
        "images": len(images),
        "plain": plain,
        "changed": len(changed),
        "distance": DEFAULT_DISTANCE,
        "recall_by_hash": by_hash(changed, hashes[places]),
        "pairs_by_hash": pairs(names, hashes),
    }
    codes = ByCode(images)
    results["by_code"] = {
        "threshold": round(codes.threshold, 4),
        "recall": codes.recall(changed, places),
    }
    if options.more:
        more_names, more = read(options.more)
        more_hashes, _ = hashes_of(more)
        results["pairs_by_hash_of_more"] = pairs(
            names + more_names, np.concatenate([hashes, more_hashes])
        )
        del more
    results["search_ms_among_a_million"] = round(1000 * search_seconds(), 2)
    results["imports"] = imports(images)
    save(results, options.out)


if __name__ == "__main__":
    main()
