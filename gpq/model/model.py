"""A loaded model, which turns images into features, packed codes and look-up tables."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from gpq.model.codebook import Codebook, pack, unpack
from gpq.pixels import decode
from gpq.pixels.preprocess import Preprocess


@dataclass(frozen=True)
class Model:
    """A model that is loaded on ``device``; several threads may call it at once.

    ``id``: SHA-256, in hex, of the weights and ``compute``.
    ``about``: classes, training, data and measured mAP; has no effect on the computation.
    """

    id: str
    rules: Preprocess
    network: nn.Module
    codebook: Codebook
    about: dict[str, Any]
    device: torch.device

    @property
    def bits(self) -> int:
        return self.codebook.bits

    @property
    def code_bytes(self) -> int:
        """The size of one packed code, ceil(M/2) bytes."""
        return (self.codebook.M + 1) // 2

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Prepares an RGB image: (3,S,S) uint8."""
        return np.ascontiguousarray(self.rules.pixels(image).transpose(2, 0, 1))

    def read(self, data: bytes) -> NDArray[np.uint8]:
        """Decodes and prepares an image file: (3,S,S) uint8. Raises ImageError."""
        return self.prepare(decode.load(data, shrink_to=self.rules.shrink_to))

    @torch.inference_mode()
    def features(self, pixels: NDArray[np.uint8] | Tensor) -> Tensor:
        """Computes features (B,D) float32 of pixels (B,3,S,S) uint8.

        TF32 is off, so that the size of the batch makes no difference.
        """
        mean, std = (
            torch.tensor(of_each, device=self.device).view(3, 1, 1)
            for of_each in (self.rules.mean, self.rules.std)
        )
        images = (torch.as_tensor(pixels).to(self.device).float() - mean) / std
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            out: Tensor = self.network(images)
        return out

    @torch.inference_mode()
    def encode(self, pixels: NDArray[np.uint8] | Tensor) -> NDArray[np.uint8]:
        """Encodes pixels (B,3,S,S) uint8 to packed codes (B,ceil(M/2)) uint8."""
        return pack(self.codebook.encode(self.features(pixels).cpu().numpy()))

    @torch.inference_mode()
    def lut(self, pixels: NDArray[np.uint8] | Tensor) -> NDArray[np.float32]:
        """Returns the look-up tables (Q,M,K) float32 of pixels (Q,3,S,S) uint8."""
        return self.codebook.lut(self.features(pixels).cpu().numpy())

    def lut_of_code(self, packed: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Decodes packed codes (Q,ceil(M/2)) and returns look-up tables (Q,M,K) float32 of them."""
        codes = unpack(packed, self.codebook.M)
        return self.codebook.lut(self.codebook.decode(codes))
