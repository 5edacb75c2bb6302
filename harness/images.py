"""Pictures made for tests, as file bytes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A random RGB picture of (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(seed: int) -> bytes:
    return encoded(noise(seed))


def quarters() -> Image.Image:
    """32×32: red, green over blue, white."""
    image = Image.new("RGB", (32, 32))
    colours = {(0, 0): "red", (16, 0): "lime", (0, 16): "blue", (16, 16): "white"}
    for corner, colour in colours.items():
        image.paste(colour, (*corner, corner[0] + 16, corner[1] + 16))
    return image


def tree(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number))
    return root
