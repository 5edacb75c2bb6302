"""Makes small images as file bytes, and finds the images that the repository ships."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness import ROOT

EXAMPLES = ROOT / "examples"  # 300 photographs, <kind>/NNNN.jpg
SAMPLE = ROOT / "tests" / "data" / "cifar10-sample.tar.xz"


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """Returns the bytes of an image file; ``options``: those of Pillow's ``save``."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """Returns an RGB image of random pixels; ``size``: width and height."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(seed: int) -> bytes:
    """Returns the bytes of a PNG of random pixels, the same for the same seed."""
    return encoded(noise(seed))


def quarters() -> Image.Image:
    """Returns a 32×32 image whose quarters are red and lime above, blue and white below."""
    image = Image.new("RGB", (32, 32))
    colours = {(0, 0): "red", (16, 0): "lime", (0, 16): "blue", (16, 16): "white"}
    for corner, colour in colours.items():
        image.paste(colour, (*corner, corner[0] + 16, corner[1] + 16))
    return image


def tree(root: Path, *paths: str) -> Path:
    """Writes a different image to each path below ``root``, and returns ``root``."""
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number))
    return root


def extract_sample(folder: Path) -> None:
    """Extracts the CIFAR-10 sample: labeled/, train/ and test/, each with <class>/NNNN.jpg."""
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(folder, filter="data")
