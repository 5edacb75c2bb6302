"""Draw queries with their first hits, green where they share the class.

.venv/bin/python -m bench.hits                 docs/hits.jpg: 300 CIFAR-10 test pictures
python -m bench.hits --model models/photos --data SEARCHED --out docs/hits-photos.jpg

--data: train/ (searched) and test/ (queries), or labelled pictures, each searched for among all
others. Drawn is the first query of each class, or of ten classes spread over all in their order.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from gpq import scan
from gpq.model import artifact
from gpq.model.model import Model
from harness import ROOT
from harness.images import extract_sample
from harness.models import SHIPPED
from trainer.data.arrays import RetrievalSet, retrieval_set, spread

SIDE, FRAME, GAP = 64, 4, 10  # pixels
LINES, HITS, JUDGED = 10, 9, 10
BATCH = 256
GREEN, RED, BACKGROUND = (34, 160, 84), (214, 66, 66), (250, 250, 248)


@contextmanager
def sample() -> Iterator[Path]:
    """The test pictures in tests/data."""
    with tempfile.TemporaryDirectory() as folder:
        extract_sample(Path(folder))
        yield Path(folder) / "test"


def searched(model: Model, pictures: RetrievalSet) -> NDArray[np.int64]:
    """(Q,JUDGED) database rows nearest to each query, itself left out."""
    packed = [model.encode(part) for part in torch.split(pictures.database, BATCH)]
    scanner = scan.build(np.concatenate(packed), model.codebook.M)
    luts = [model.lut(part) for part in torch.split(pictures.queries, BATCH)]
    own = pictures.own_rows
    asked = [None] * len(pictures.queries) if own is None else own.tolist()
    rows, _ = scanner.search(np.concatenate(luts), JUDGED + 1)
    each = zip(asked, rows, strict=True)
    return np.array([[row for row in found if row != q][:JUDGED] for q, found in each])


def drawn(pictures: RetrievalSet, rows: NDArray[np.int64], right: NDArray[np.bool_]) -> Image.Image:
    """A line a query, on the left."""
    firsts = pictures.query_labels.argmax(dim=0)  # of each class
    lines = firsts[spread(len(firsts), LINES)].tolist()
    cell = SIDE + 2 * FRAME + GAP
    sheet = Image.new("RGB", (GAP * 3 + cell * (HITS + 1), GAP + cell * len(lines)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for line, query in enumerate(lines):
        top = GAP + line * cell
        _paste(sheet, pictures.queries[query], GAP, top)
        for column, row in enumerate(rows[query, :HITS]):
            left = GAP * 3 + (column + 1) * cell
            colour = GREEN if right[query, column] else RED
            box = (left - FRAME, top - FRAME, left + SIDE + FRAME - 1, top + SIDE + FRAME - 1)
            draw.rectangle(box, fill=colour)
            _paste(sheet, pictures.database[row], left, top)
    return sheet


def _paste(sheet: Image.Image, pixels: Tensor, left: int, top: int) -> None:
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--data", type=Path, help="(the sample in tests/data)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "hits.jpg")
    options = parser.parse_args()
    model = artifact.load(options.model)
    if options.data:
        pictures = retrieval_set(options.data, "folder", model.rules)
    else:
        with sample() as folder:
            pictures = retrieval_set(folder, "folder", model.rules)
    rows = searched(model, pictures)
    labels = pictures.database_labels[torch.from_numpy(rows)]
    right = (labels & pictures.query_labels[:, None]).any(dim=2).numpy()
    print(f"precision@{JUDGED} {right.mean():.3f}, n = {len(pictures.queries)}")
    drawn(pictures, rows, right).save(options.out, quality=88)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
