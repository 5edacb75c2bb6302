"""Measures a model without labels on kinds of images that it has not learnt.

python -m bench.unseen --learn PLACES --learn TINY@128 clothing=CLOTHING birds=BIRDS:4 …

Each NAME=FOLDER[:DEPTH] is a folder of <class>/*. 1,000 of its images are searched for, each among
all others of the folder: precision at DEPTH (10) and mAP of the network's float features, of the
model's codes and of their first 24, 48 and 96 bits. --learn, which may be repeated, gives folders
whose images faiss learns OPQ and PQ of the same features and bits from; @PIXELS is the size that
they are scaled to.

All folders together are then the database in which changed copies of 1,000 of their images search
for the image itself: recall at 1 by kind of change. The results are written to
bench/results/unseen.json.
"""

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch
from PIL import Image, ImageEnhance
from tqdm import tqdm

from bench.features import Features, Floats, Ints
from bench.machine import describe
from bench.output import RESULTS, save
from gpq.model.codebook import Codebook
from harness.models import DEFAULT
from trainer.components.source import Source, read
from trainer.config import QUANTISED_BITS
from trainer.data.listing import class_folders
from trainer.quantise.command import Folder

# Returns the scores (Q,N) of rows (Q,) of features (N,E) that search, and of all features.
Scores = Callable[[Floats, Floats], Floats]
Ways = dict[str, Scores]

QUERIES = 1000
BATCH = 50  # changed copies that are encoded at a time
LEARNT = 20_000  # images of each folder that the peers learn from
PEER_DIMENSIONS, PEER_TOTAL = 16, 512  # at most, of a sub-vector of PQ and OPQ, and of all together
PEER_ITERATIONS = 15
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "60 % crop": lambda image: image.crop(_centre(image, 0.6)),
    "JPEG quality 30": lambda image: _jpeg(image, 30),
    "half size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brightness 1.4": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 10°": lambda image: image.rotate(10, Image.Resampling.BICUBIC, fillcolor="white"),
}


@dataclass(frozen=True)
class Searched:
    """A folder of classes: its files, their features (N,E), their classes (N,), and DEPTH."""

    files: list[Path]
    features: Floats
    labels: Ints
    depth: int


def labelled(features: Features, folder: Path, depth: int) -> Searched:
    """Reads a folder of classes."""
    listing = class_folders(folder)
    found, rows = features.of_files(list(listing.files), features.size)
    labels = [listing.classes.index(next(iter(listing.labels[row]))) for row in rows]
    return Searched([listing.files[row] for row in rows], found, np.array(labels), depth)


def floats(asking: Floats, stored: Floats) -> Floats:
    """Scores by the cosine of features."""
    return unit(asking) @ unit(stored).T


def codes(source: Source, M: int) -> Scores:
    """Scores by the first M codebooks of a model."""
    last = source.network.get_submodule("project")
    codebook: Codebook = source.artifact.codebook.first(M)
    scores = by_codes(codebook)

    def projected(features: Floats) -> Floats:
        with torch.no_grad():
            found: Floats = last(torch.from_numpy(features)).numpy()
        return found[:, : M * codebook.Z.shape[2]]

    return lambda asking, stored: scores(projected(asking), projected(stored))


def by_codes(codebook: Codebook) -> Scores:
    """Scores of features (N,D) of the network by look-up tables and codes."""

    def score(asking: Floats, stored: Floats) -> Floats:
        lut, found = codebook.lut(asking), codebook.encode(stored)
        return np.sum([lut[:, m, found[:, m]] for m in range(codebook.M)], axis=0, dtype=np.float32)

    return score


def peer(learnt: Floats, M: int, *, rotate: bool) -> Scores:
    """Scores by PQ, or OPQ if ``rotate``, of 4·M bits, learnt from unit features (N,E).

    Queries are not quantised. Decoded vectors are scaled to unit length, which is better.
    """
    dimension = min(PEER_DIMENSIONS, PEER_TOTAL // M) * M
    if rotate:
        turned = faiss.OPQMatrix(learnt.shape[1], M, dimension)
        turned.niter = PEER_ITERATIONS
    else:
        turned = faiss.PCAMatrix(learnt.shape[1], dimension, 0, True)
    turned.train(learnt)
    quantiser = faiss.ProductQuantizer(dimension, M, 4)
    quantiser.train(turned.apply(learnt))

    def score(asking: Floats, stored: Floats) -> Floats:
        decoded = quantiser.decode(quantiser.compute_codes(turned.apply(unit(stored))))
        found: Floats = turned.apply(unit(asking)) @ unit(decoded).T
        return found

    return score


def unit(x: Floats) -> Floats:
    found: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    return np.ascontiguousarray(found, np.float32)


def quality(searched: Searched, scores: Scores, rows: Ints) -> dict[str, float]:
    """Returns precision at DEPTH, or at as many images as are right, and mAP.

    rows (Q,): the images that are searched for.
    """
    found = scores(searched.features[rows], searched.features)
    found[np.arange(len(rows)), rows] = -np.inf
    order = np.argsort(-found, axis=1, kind="stable")[:, :-1]
    right = searched.labels[order] == searched.labels[rows][:, None]
    reached = right.cumsum(axis=1) / np.arange(1, right.shape[1] + 1)
    exist = right.sum(axis=1)
    depth = min(searched.depth, int(exist.max()))
    precision = (reached * right).sum(axis=1)[exist > 0] / exist[exist > 0]
    return {
        "precision": round(float(right[:, :depth].mean()), 4),
        "mAP": round(float(precision.mean()), 4),
    }


def drawn(rows: Ints) -> Ints:
    """Draws at most QUERIES of some rows."""
    return np.random.default_rng(0).permutation(rows)[:QUERIES]


def _centre(image: Image.Image, share: float) -> tuple[int, int, int, int]:
    """Returns the box of the middle that has a share of the area."""
    width, height = (round(side * share**0.5) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return left, top, left + width, top + height


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    made = io.BytesIO()
    image.save(made, "JPEG", quality=quality)
    return Image.open(made).convert("RGB")


def parsed(text: str) -> tuple[str, Path, int]:
    """Reads NAME=FOLDER[:DEPTH]."""
    name, _, rest = text.partition("=")
    path, colon, depth = rest.rpartition(":")
    return (name, Path(path), int(depth)) if colon else (name, Path(rest), 10)


def recalls(features: Features, sets: list[Searched], ways: Ways) -> dict[str, dict[str, float]]:
    """Returns the recall at 1 of changed copies of QUERIES images, by kind of change and way."""
    files = [file for searched in sets for file in searched.files]
    stored = np.concatenate([searched.features for searched in sets])
    rows = drawn(np.arange(len(files)))
    part, found = features.part(features.size), {}
    with part.running("cpu") as running:
        for change, apply in tqdm(CHANGES.items(), desc="changes"):
            asked = []
            for first in range(0, len(rows), BATCH):
                images = [Image.open(files[r]).convert("RGB") for r in rows[first : first + BATCH]]
                pixels = [part.rules.prepare(apply(image)) for image in images]
                asked.append(running.compute(np.stack(pixels)))
            own = np.concatenate(asked)
            found[change] = {
                way: round(float((scores(own, stored).argmax(axis=1) == rows).mean()), 4)
                for way, scores in ways.items()
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="(models/photos)")
    parser.add_argument("--learn", action="append", required=True, metavar="DIR[@PIXELS]")
    parser.add_argument("sets", nargs="+", type=parsed, metavar="NAME=FOLDER[:DEPTH]")
    parser.add_argument("--out", type=Path, default=RESULTS / "unseen.json")
    options = parser.parse_args()
    source = read(options.model)
    features = Features(source)
    folders = [Folder.parse(text, source.size) for text in options.learn]
    learnt = unit(np.concatenate([features.of_folder(folder, LEARNT) for folder in folders]))
    sets = {name: labelled(features, path, depth) for name, path, depth in options.sets}
    whole = source.artifact.codebook.M
    lengths = [bits // 4 for bits in QUANTISED_BITS if bits // 4 < whole] + [whole]
    ways: Ways = {"floats": floats}
    for M in tqdm(lengths, desc="peers"):
        ways[f"ours {4 * M}"] = codes(source, M)
        ways[f"OPQ {4 * M}"] = peer(learnt, M, rotate=True)
        ways[f"PQ {4 * M}"] = peer(learnt, M, rotate=False)
    results: dict[str, object] = {
        "machine": describe(),
        "model": source.id,
        "images": {name: len(searched.files) for name, searched in sets.items()},
        "quality": {
            name: {
                way: quality(searched, scores, drawn(np.arange(len(searched.files))))
                for way, scores in ways.items()
            }
            for name, searched in sets.items()
        },
        "recall at 1": recalls(features, list(sets.values()), ways),
    }
    save(results, options.out)


if __name__ == "__main__":
    main()
