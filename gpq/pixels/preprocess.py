"""Turns RGB images into the input of a network.

Training, indexing and querying all use this module, so that an image has the same input in all of
them. The rules are constants of the artifact (``Preprocess``).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_PIXELS = 1024  # a side of a network's input
JPEG_WHOLE, JPEG_SCALED = "whole", "scaled-to-twice"


@dataclass(frozen=True)
class Preprocess:
    """The ``preprocess`` part of an artifact's ``compute``.

    ``size``: side of the square input, in pixels.
    ``mean``, ``std``: mean and standard deviation of each channel, on the 0–255 scale.
    ``jpeg``: whether JPEG blocks may be decoded to fewer pixels, with sides of at least twice
    ``size``.
    """

    size: int
    mean: tuple[float, float, float] = (125.642, 123.738, 114.46)
    std: tuple[float, float, float] = (63.01, 62.157, 66.94)
    orientation: str = "exif"
    colour: str = "icc-to-srgb"
    alpha: str = "over-white"
    grey16: str = "divide-257"
    resize: str = "shorter-side-bicubic-antialias"
    crop: str = "centre"
    jpeg: str = JPEG_WHOLE  # of artifacts without this rule

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Preprocess":
        """Reads the rules of an artifact; raises ValueError if this version lacks one of them."""
        made = cls(**{**config, "mean": tuple(config["mean"]), "std": tuple(config["std"])})
        if not (isinstance(made.size, int) and 1 <= made.size <= MOST_PIXELS):
            raise ValueError(f"size is {made.size!r}; 1 to {MOST_PIXELS} pixels a side")
        jpeg = JPEG_WHOLE if made.jpeg == JPEG_WHOLE else JPEG_SCALED
        known = cls(size=made.size, mean=made.mean, std=made.std, jpeg=jpeg)
        if made != known:
            raise ValueError(
                f"this version does not support the image rules {config}, only {asdict(known)}"
            )
        return made

    @property
    def shrink_to(self) -> int | None:
        """The ``shrink_to`` of ``decode.decode`` for images that these rules prepare."""
        return 2 * self.size if self.jpeg == JPEG_SCALED else None

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resizes the shorter side of an RGB image and crops the centre: (size,size,3) uint8."""
        return np.asarray(self._square(image))

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resizes and crops an RGB image: (3,size,size) uint8, channels first."""
        square = self._square(image)
        channels = bytearray().join(square.tobytes("raw", band) for band in "RGB")
        return np.frombuffer(channels, np.uint8).reshape(3, self.size, self.size)

    def _square(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return image.resize(
            (self.size, self.size),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
        )

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels (B,3,H,W) on the 0–255 scale -> float32 network input, contiguous."""
        mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (self.mean, self.std))
        images: NDArray[np.float32] = np.subtract(pixels, mean, dtype=np.float32, order="C")
        images /= std
        return images
