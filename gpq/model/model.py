"""A loaded model: pictures -> features -> packed codes or look-up tables."""

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
    """What an artifact computes, ready on ``device``. Safe to call from several threads.

    id: sha256 hex of weights and ``compute``. about: classes, training, data, measured
    mAP; says nothing about what is computed.
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
        """Bytes of one packed code, ceil(M/2)."""
        return (self.codebook.M + 1) // 2

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """RGB image -> (3,S,S) uint8."""
        return np.ascontiguousarray(self.rules.pixels(image).transpose(2, 0, 1))

    def read(self, data: bytes) -> NDArray[np.uint8]:
        """A picture's file -> (3,S,S) uint8. Raises ImageError."""
        return self.prepare(decode.load(data, shrink_to=self.rules.shrink_to))

    @torch.inference_mode()
    def features(self, pixels: NDArray[np.uint8] | Tensor) -> Tensor:
        """(B,3,S,S) uint8 -> (B,D) float32, TF32 off: batch 1 and 64 agree."""
        images = self.rules.normalise(torch.as_tensor(pixels).to(self.device))
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            out: Tensor = self.network(images)
        return out

    @torch.inference_mode()
    def encode(self, pixels: NDArray[np.uint8] | Tensor) -> NDArray[np.uint8]:
        """(B,3,S,S) uint8 -> packed codes (B,ceil(M/2)) uint8."""
        return pack(self.codebook.encode(self.features(pixels))).cpu().numpy()

    @torch.inference_mode()
    def lut(self, pixels: NDArray[np.uint8] | Tensor) -> NDArray[np.float32]:
        """(Q,3,S,S) uint8 -> look-up tables (Q,M,K) float32."""
        return self.codebook.lut(self.features(pixels)).cpu().numpy()

    @torch.inference_mode()
    def lut_of_code(self, packed: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Packed codes (Q,ceil(M/2)) -> look-up tables (Q,M,K) float32 of the decoded codes."""
        codebook = self.codebook.to("cpu")  # it is little, and there may be no room beside it
        codes = unpack(torch.as_tensor(packed), codebook.M)
        return codebook.lut(codebook.decode(codes)).numpy()
