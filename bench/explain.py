"""Draws the figures of docs/how-it-works.md with models/photos and the example images.

.venv/bin/python -m bench.explain
"""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from gpq import scan
from gpq.engine import engines
from gpq.model.codebook import unpack
from gpq.model.model import Model
from harness import ROOT
from harness.images import EXAMPLES
from harness.models import DEFAULT
from trainer.artifacts.cut import cut

DOCS = ROOT / "docs"
QUERY = EXAMPLES / "shoes" / "0002.jpg"
BITS = 48  # few enough to be drawn
SHOWN_RANKS = (1, 40, 299)  # of the 299 other images: the nearest, one in between, the last
COLOURS = ("#1a9850", "#e08214", "#c51b7d")


def look_up(model: Model, files: list[Path], pixels: np.ndarray) -> None:
    """Draws docs/look-up.png: the look-up table of one query with three codes marked in it."""
    query = files.index(QUERY)
    packed = model.encode(pixels)
    codes = unpack(packed, model.codebook.M)
    lut = model.lut(pixels[query : query + 1])
    rows, scores = scan.build(packed, model.codebook.M).search(lut, k=len(files))
    others = [(r, s) for r, s in zip(rows[0], scores[0], strict=True) if r != query]
    shown = [others[rank - 1] for rank in SHOWN_RANKS]

    figure = plt.figure(figsize=(11, 5.2), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(2.2, 6, 2.6))
    axes = left.subplots()
    axes.imshow(Image.open(QUERY), interpolation="lanczos")
    axes.set_title("the query")
    axes.axis("off")

    axes = middle.subplots()
    table = axes.imshow(lut[0] * model.codebook.M, cmap="viridis", vmin=-1, vmax=1, aspect="auto")
    for (row, _), colour, shift in zip(shown, COLOURS, (-0.26, 0, 0.26), strict=True):
        axes.scatter(
            codes[row] + shift, np.arange(model.codebook.M), s=52, color=colour,
            edgecolor="white", linewidth=1,
        )  # fmt: skip
    axes.set_xlabel("codeword, 0 to 15: the four bits of one sub-code")
    axes.set_ylabel("codebook, 0 to 11")
    axes.set_xticks(range(16))
    axes.set_yticks(range(model.codebook.M))
    axes.set_title("its look-up table: expected cosine with the sub-vectors of each codeword")
    middle.colorbar(table, ax=axes, shrink=0.8, pad=0.01)

    panels = right.subplots(3, 1)
    for axes, (row, score), rank, colour in zip(panels, shown, SHOWN_RANKS, COLOURS, strict=True):
        axes.imshow(Image.open(files[row]), interpolation="lanczos")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=4)
        hexadecimal = "".join(f"{code:x}" for code in codes[row])
        axes.set_title(f"rank {rank}: score {score:.3f}\n{hexadecimal}", fontsize=10)
    figure.savefig(DOCS / "look-up.png", dpi=90)
    plt.close(figure)


def all_pairs(model: Model, files: list[Path], pixels: np.ndarray) -> None:
    """Draws docs/all-pairs.png: the scores of all pairs of example images, class by class."""
    packed = model.encode(pixels)
    rows, scores = scan.build(packed, model.codebook.M).search(model.lut(pixels), k=len(files))
    matrix = np.empty_like(scores)
    np.put_along_axis(matrix, rows, scores, axis=1)
    names = [file.parent.name for file in files]
    classes = sorted(set(names))
    middles = [np.flatnonzero(np.array(names) == name).mean() for name in classes]

    figure, axes = plt.subplots(figsize=(7, 6.2), layout="constrained")
    low, high = np.quantile(matrix, (0.01, 0.99))
    image = axes.imshow(matrix, cmap="magma", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xticks(middles, classes, rotation=45, ha="right")
    axes.set_yticks(middles, classes)
    axes.set_xlabel("stored image")
    axes.set_ylabel("query")
    figure.colorbar(image, label="score", shrink=0.85)
    figure.savefig(DOCS / "all-pairs.png", dpi=90)
    plt.close(figure)


def main() -> None:
    files = sorted(EXAMPLES.rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        cut(DEFAULT, BITS, Path(folder))
        shorter = engines.load(Path(folder))
    pixels = np.stack([shorter.read(file.read_bytes()) for file in files])
    look_up(shorter, files, pixels)
    all_pairs(engines.load(DEFAULT), files, pixels)


if __name__ == "__main__":
    main()
