"""Draws queries with their nearest images, framed green if they have the query's class.

.venv/bin/python -m bench.hits                 docs/hits.jpg, from the example images
python -m bench.hits --model MODEL --data SEARCHED --out FILE

--data is a folder with train/ (the database) and test/ (the queries), or a folder of <class>/*,
where every image is a query and is searched for among all others. The plot has the first query of
each class, or of ten evenly chosen classes if the data has more.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from gpq import scan
from gpq.engine import engines
from gpq.model.model import Model
from harness import ROOT
from harness.images import EXAMPLES
from harness.models import DEFAULT
from trainer.data.image_sets import RetrievalSet, retrieval_set, spread

SIDE, FRAME, GAP = 80, 4, 10  # pixels
LINES, HITS = 10, 9  # drawn
JUDGED = 10  # hits that count for the precision
BATCH = 256
GREEN, RED, BACKGROUND = (34, 160, 84), (214, 66, 66), (250, 250, 248)


def nearest(model: Model, images: RetrievalSet) -> NDArray[np.int64]:
    """Returns the database rows (Q,JUDGED) nearest to each query, except the query itself."""
    packed = [model.encode(part) for part in torch.split(images.database, BATCH)]
    scanner = scan.build(np.concatenate(packed), model.codebook.M)
    luts = [model.lut(part) for part in torch.split(images.queries, BATCH)]
    own = images.own_rows
    left_out = [None] * len(images.queries) if own is None else own.tolist()
    rows, _ = scanner.search(np.concatenate(luts), JUDGED + 1)
    each = zip(left_out, rows, strict=True)
    return np.array([[row for row in found if row != q][:JUDGED] for q, found in each])


def drawn(images: RetrievalSet, rows: NDArray[np.int64], right: NDArray[np.bool_]) -> Image.Image:
    """Draws one line per query: the query on the left, then its hits.

    ``rows`` (Q,JUDGED): the hits. ``right`` (Q,JUDGED): whether a hit has the query's class.
    """
    firsts = images.query_labels.argmax(dim=0)  # the first query of each class
    lines = firsts[spread(len(firsts), LINES)].tolist()
    cell = SIDE + 2 * FRAME + GAP
    sheet = Image.new("RGB", (GAP * 3 + cell * (HITS + 1), GAP + cell * len(lines)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for line, query in enumerate(lines):
        top = GAP + line * cell
        _paste(sheet, images.queries[query], GAP, top)
        for column, row in enumerate(rows[query, :HITS]):
            left = GAP * 3 + (column + 1) * cell
            colour = GREEN if right[query, column] else RED
            box = (left - FRAME, top - FRAME, left + SIDE + FRAME - 1, top + SIDE + FRAME - 1)
            draw.rectangle(box, fill=colour)
            _paste(sheet, images.database[row], left, top)
    return sheet


def _paste(sheet: Image.Image, pixels: Tensor, left: int, top: int) -> None:
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="(models/photos)")
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder of images (examples)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "hits.jpg", help="JPEG file")
    options = parser.parse_args()
    model = engines.load(options.model)
    images = retrieval_set(options.data, "folder", model.rules)
    rows = nearest(model, images)
    labels = images.database_labels[torch.from_numpy(rows)]
    right = (labels & images.query_labels[:, None]).any(dim=2).numpy()
    print(f"precision@{JUDGED} {right.mean():.3f}, n = {len(images.queries)}")
    drawn(images, rows, right).save(options.out, quality=88)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
