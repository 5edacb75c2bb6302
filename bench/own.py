"""Measures what a training on own images brings where few have labels, beside a linear probe.

python -m bench.own clothing=CLOTHING birds=BIRDS:4:2 [--baseline] [-- OPTIONS OF train]

Each NAME=FOLDER[:DEPTH[:LABELS]] is a folder of <class>/*. LABELS (10) images of each class are
learnt with their labels, the others without. 1,000 of the others are searched for, each among all
other images: precision at DEPTH (10) and mAP, and the seconds that the training takes. Compared
are the float features of models/photos, a logistic regression on them that ranks by its
probabilities, models/photos at 48 bits before, and the model that is trained from it.

--baseline also trains as was done before models/photos had the weights of a published network:
a small network from models/photos64, on images of 64 pixels. The results are written to
bench/results/own.json.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from bench.features import Features, Floats
from bench.machine import describe
from bench.output import RESULTS, save
from bench.unseen import Scores, Searched, by_codes, drawn, floats, labelled, quality, unit
from gpq.engine import engines
from gpq.model.codebook import Codebook
from harness.models import DEFAULT, PHOTOS64
from trainer.components.source import read

BITS = 48
BATCH = 50  # images that a model encodes at a time
STRENGTHS = (0.1, 1.0, 10.0)  # inverse regularisation of the probes, of which the best counts
BASELINE = ["--size", "64", "--init", str(PHOTOS64), "--steps", "350"]


def laid_out(searched: Searched, labels: int, folder: Path) -> NDArray[np.bool_]:
    """Links images below ``folder`` as the trainer reads them; returns which have labels (N,)."""
    known = np.zeros(len(searched.files), bool)
    for kind in np.unique(searched.labels):
        rows = np.flatnonzero(searched.labels == kind)
        known[np.random.default_rng(kind).permutation(rows)[:labels]] = True
    for row, file in enumerate(searched.files):
        place = folder / ("labeled" if known[row] else "unlabeled") / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).symlink_to(file.resolve())
    return known


def trained(data: Path, out: Path, options: Sequence[str]) -> float:
    """Trains a model; returns how many seconds it took."""
    started = time.monotonic()
    command = [sys.executable, "-m", "trainer", "train", "--data", str(data), "--out", str(out)]
    subprocess.run([*command, "--held-out", "0", *options], check=True)
    return time.monotonic() - started


def encoded(folder: Path, files: Sequence[Path]) -> tuple[Codebook, Floats]:
    """Returns the codebook of a model, cut to BITS, and its features (N,D) of images."""
    model = engines.load(folder)
    parts = []
    for first in tqdm(range(0, len(files), BATCH), desc="encoding", unit="batch"):
        pixels = [model.read(file.read_bytes()) for file in files[first : first + BATCH]]
        parts.append(model.features(np.stack(pixels)))
    codebook = model.codebook.first(BITS // 4)
    return codebook, np.concatenate(parts)[:, : codebook.M * codebook.Z.shape[2]]


def probes(searched: Searched, known: NDArray[np.bool_]) -> dict[str, Floats]:
    """Returns the probabilities (N,C), or their directions, that linear classifiers predict."""
    standard = searched.features - searched.features.mean(axis=0)
    standard /= standard.std(axis=0) + 0.01
    inputs = {"standardised": standard, "unit length": 10 * unit(searched.features)}
    found = {}
    for name, x in inputs.items():
        for strength in STRENGTHS:
            probe = LogisticRegression(C=strength, max_iter=500)
            probe.fit(x[known], searched.labels[known])
            likely = probe.predict_proba(x).astype(np.float32)
            found[f"{name}, C={strength}, product"] = likely
            found[f"{name}, C={strength}, cosine"] = unit(likely)
    return found


def measured(
    name: str, folder: Path, depth: int, labels: int, options: argparse.Namespace
) -> dict[str, object]:
    """Trains on a folder of classes and returns what is found with each way of searching."""
    searched = labelled(Features(read(DEFAULT)), folder, depth)
    with tempfile.TemporaryDirectory() as place:
        data, out = Path(place, "data"), Path(place, "run")
        known = laid_out(searched, labels, data)
        queries = drawn(np.flatnonzero(~known))

        def scored(features: Floats, scores: Scores) -> dict[str, float]:
            return quality(replace(searched, features=features), scores, queries)

        def of_model(folder: Path) -> dict[str, float]:
            codebook, features = encoded(folder, searched.files)
            return scored(features, by_codes(codebook))

        found: dict[str, object] = {"float features": scored(searched.features, floats)}
        of_probes = {
            way: scored(likely, lambda asking, stored: asking @ stored.T)
            for way, likely in probes(searched, known).items()
        }
        for figure in ("precision", "mAP"):
            way = max(of_probes, key=lambda way: of_probes[way][figure])
            found[f"linear probe, best {figure} ({way})"] = of_probes[way]
        found["models/photos"] = of_model(DEFAULT)
        runs = {"trained": options.train, **({"baseline": BASELINE} if options.baseline else {})}
        for run, words in runs.items():
            seconds = trained(data, out / run, words)
            found[run] = {**of_model(out / run), "seconds": round(seconds)}
    return {"images": len(known), "labelled": int(known.sum()), "found": found}


def parsed(text: str) -> tuple[str, Path, int, int]:
    """Reads NAME=FOLDER[:DEPTH[:LABELS]]."""
    name, _, rest = text.partition("=")
    path, *numbers = rest.split(":")
    depth, labels = [*map(int, numbers), *[10, 10][len(numbers) :]]
    return name, Path(path), depth, labels


def main() -> None:
    words = [*sys.argv[1:], "--"]
    own, train = words[: words.index("--")], words[words.index("--") + 1 : -1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", type=parsed, metavar="NAME=FOLDER[:DEPTH[:LABELS]]")
    parser.add_argument("--baseline", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "own.json")
    options = parser.parse_args(own)
    options.train = train
    results: dict[str, object] = {
        "machine": describe(),
        "options": train,
        "sets": {name: measured(name, *rest, options) for name, *rest in options.sets},
    }
    save(results, options.out)


if __name__ == "__main__":
    main()
