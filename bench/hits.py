"""Draw docs/hits.jpg: queries with their first hits among 300 CIFAR-10 test pictures.

.venv/bin/python -m bench.hits
"""

import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from gpq import artifact, scan
from gpq.decode import load

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "tests" / "data" / "cifar10-sample.tar.xz"
SIDE, FRAME, GAP = 64, 4, 10  # pixels
HITS = 9
GREEN, RED, BACKGROUND = (34, 160, 84), (214, 66, 66), (250, 250, 248)


def test_pictures() -> tuple[list[Image.Image], np.ndarray]:
    """The sample's 300 test pictures and their class names."""
    images, names = [], []
    with tarfile.open(SAMPLE) as archive:
        for member in archive:
            if member.name.startswith("test/"):
                file = archive.extractfile(member)
                assert file is not None
                images.append(load(file.read()))
                names.append(member.name.split("/")[1])
    return images, np.array(names)


def main() -> None:
    model = artifact.load(ROOT / "models" / "cifar10")
    images, names = test_pictures()
    pixels = np.stack([model.prepare(image) for image in images])
    scanner = scan.build(model.encode(pixels), model.codebook.M)
    # The first picture of every class, chosen before looking.
    queries = [int(np.flatnonzero(names == name)[0]) for name in sorted(set(names))]
    rows, _ = scanner.search(model.lut(pixels[queries]), k=HITS + 1)

    # The query is left out; a row per picture.
    all_rows, _ = scanner.search(model.lut(pixels), k=len(images))
    first_ten = [[h for h in hits if h != q][:10] for q, hits in enumerate(all_rows)]
    print(f"precision@10 {(names[first_ten] == names[:, None]).mean():.3f}, n = {len(images)}")

    cell = SIDE + 2 * FRAME + GAP
    sheet = Image.new("RGB", (GAP * 3 + cell * (HITS + 1), GAP + cell * len(queries)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for line, (query, hits) in enumerate(zip(queries, rows, strict=True)):
        top = GAP + line * cell
        _paste(sheet, images[query], GAP, top)
        for column, hit in enumerate([h for h in hits if h != query][:HITS]):
            left = GAP * 3 + (column + 1) * cell
            colour = GREEN if names[hit] == names[query] else RED
            box = (left - FRAME, top - FRAME, left + SIDE + FRAME - 1, top + SIDE + FRAME - 1)
            draw.rectangle(box, fill=colour)
            _paste(sheet, images[hit], left, top)
    (ROOT / "docs").mkdir(exist_ok=True)
    sheet.save(ROOT / "docs" / "hits.jpg", quality=88)


def _paste(sheet: Image.Image, image: Image.Image, left: int, top: int) -> None:
    sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))


if __name__ == "__main__":
    main()
