"""Uploaded bytes, or an RGB image of them -> (3,H,W). The only definition.

Training, indexing and querying all come through here, so that a picture means
the same everywhere. The rules are constants of the artifact (``Preprocess``).
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

MOST_PIXELS = 1024  # a side of what a network sees
JPEG_WHOLE, JPEG_SCALED = "whole", "scaled-to-twice"


@dataclass(frozen=True)
class Preprocess:
    """The ``preprocess`` part of an artifact's ``compute``.

    size: pixels of the square input; mean, std: per channel, on the 0–255 scale. jpeg: whether
    its blocks may be decoded to fewer pixels, no side to less than twice ``size``.
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
    jpeg: str = JPEG_WHOLE  # of artifacts that do not say

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Preprocess":
        """Raises ValueError where ``config`` asks for a rule this version lacks."""
        made = cls(**{**config, "mean": tuple(config["mean"]), "std": tuple(config["std"])})
        if not (isinstance(made.size, int) and 1 <= made.size <= MOST_PIXELS):
            raise ValueError(f"size is {made.size!r}; 1 to {MOST_PIXELS} pixels a side")
        jpeg = JPEG_WHOLE if made.jpeg == JPEG_WHOLE else JPEG_SCALED
        known = cls(size=made.size, mean=made.mean, std=made.std, jpeg=jpeg)
        if made != known:
            raise ValueError(
                f"picture rules {config} are not those of this version: {asdict(known)}"
            )
        return made

    @property
    def shrink_to(self) -> int | None:
        """Of ``decode.decode``, for pictures that come through here."""
        return 2 * self.size if self.jpeg == JPEG_SCALED else None

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB image -> (size,size,3) uint8: shorter side resized, centre crop."""
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        square = image.resize(
            (self.size, self.size),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
        )
        return np.asarray(square)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B,3,H,W) on the 0–255 scale, any dtype -> float32 network input."""
        mean, std = (_channels(of_each, pixels.device) for of_each in (self.mean, self.std))
        return (pixels.float() - mean) / std

    def tensor(self, images: list[Image.Image]) -> Tensor:
        """RGB images -> (B,3,size,size) float32 network input."""
        if not images:
            return torch.empty(0, 3, self.size, self.size)
        stacked = np.stack([self.pixels(image) for image in images])
        return self.normalise(torch.from_numpy(stacked).permute(0, 3, 1, 2))


@lru_cache(maxsize=64)
def _channels(of_each: tuple[float, float, float], device: torch.device) -> Tensor:
    """(3,1,1) float32. Kept: a copy to a card waits for it, and cannot be in a CUDA graph."""
    with torch.inference_mode(False):
        return torch.tensor(of_each, device=device).view(3, 1, 1)
