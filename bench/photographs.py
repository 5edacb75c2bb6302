"""Makes large JPEGs, with noise like a camera's, from the small example images."""

from pathlib import Path

import numpy as np
from PIL import Image

from harness.images import EXAMPLES, encoded


def by_size() -> dict[str, bytes]:
    """Returns one example image as JPEGs of four sizes, by names such as 640×480, largest first."""
    small = min(EXAMPLES.rglob("*.jpg"))
    return {
        "2000×1500": enlarged(small, 2000, 1500),
        "1280×960": enlarged(small, 1280, 960),
        "640×480": enlarged(small, 640, 480),
        "32×32": small.read_bytes(),
    }


def enlarged(file: Path, width: int, height: int) -> bytes:
    """Returns the image of ``file`` as a JPEG of that size, with noise added to its pixels."""
    large = Image.open(file).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    pixels = (np.asarray(large) + grain).clip(0, 255).astype(np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", quality=85)
