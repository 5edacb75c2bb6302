"""Makes JPEGs of several sizes, with noise like a camera's, from an example image."""

from pathlib import Path

import numpy as np
from PIL import Image

from harness.images import EXAMPLES, encoded


def by_size() -> dict[str, bytes]:
    """Returns one example image as JPEGs of four sizes, by names such as 640×480."""
    small = min(EXAMPLES.rglob("*.jpg"))
    return {
        "2000×1500": scaled(small, 2000, 1500),
        "1280×960": scaled(small, 1280, 960),
        "640×480": scaled(small, 640, 480),
        "32×32": scaled(small, 32, 32),
    }


def scaled(file: Path, width: int, height: int) -> bytes:
    """Returns the image of ``file`` as a JPEG of that size, with noise added to its pixels."""
    image = Image.open(file).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    pixels = (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", quality=85)
