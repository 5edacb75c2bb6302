"""A loaded model, which turns images into features, packed codes and look-up tables."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpq.model.codebook import Codebook, pack, unpack
from gpq.model.network import Network
from gpq.pixels import decode
from gpq.pixels.preprocess import Preprocess


@dataclass(frozen=True)
class Model:
    """A model that an engine has loaded; several threads may call it at once.

    ``id``: SHA-256, in hex, of the weights and ``compute``.
    ``about``: classes, training, data and measured mAP; has no effect on the computation.
    ``reason``: why this engine runs the network.
    """

    id: str
    rules: Preprocess
    network: Network
    codebook: Codebook
    about: dict[str, Any]
    reason: str = ""

    @property
    def bits(self) -> int:
        return self.codebook.bits

    @property
    def code_bytes(self) -> int:
        """The size of one packed code, ceil(M/2) bytes."""
        return (self.codebook.M + 1) // 2

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Prepares an RGB image: (3,S,S) uint8."""
        return self.rules.prepare(image)

    def read(self, data: bytes) -> NDArray[np.uint8]:
        """Decodes and prepares an image file: (3,S,S) uint8. Raises ImageError."""
        return self.prepare(decode.load(data, shrink_to=self.rules.shrink_to))

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Computes features (B,D) of pixels (B,3,S,S)."""
        if not len(pixels):
            return np.empty((0, self.codebook.M * self.codebook.Z.shape[2]), np.float32)
        return self.network.features(pixels)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encodes pixels (B,3,S,S) to packed codes (B,ceil(M/2))."""
        return pack(self.codebook.encode(self.features(pixels)))

    def lut(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the look-up tables (Q,M,K) of pixels (Q,3,S,S)."""
        return self.codebook.lut(self.features(pixels))

    def decode(self, code: bytes) -> NDArray[np.float32]:
        """Returns the codewords (D,) of a packed code, which take the place of features."""
        packed = np.frombuffer(code, dtype=np.uint8)[None].copy()
        words: NDArray[np.float32] = self.codebook.decode(unpack(packed, self.codebook.M))[0]
        return words
