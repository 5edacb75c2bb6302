"""Uploaded bytes -> pixels -> codes and look-up tables, off the event loop."""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpq import preprocess, scan
from gpq.model import Model

BATCH = 64  # pictures through the network at once


@dataclass(frozen=True)
class Picture:
    """A decoded upload: its full size and the (3,S,S) uint8 the network sees."""

    width: int
    height: int
    pixels: NDArray[np.uint8]


class Encoder:
    """Few pictures are decoded at a time: that bounds memory whatever is uploaded."""

    def __init__(self, model: Model, max_pixels: int, decode_threads: int) -> None:
        self.model, self.max_pixels = model, max_pixels
        self._decoding = threading.BoundedSemaphore(decode_threads)
        self._computing = threading.Lock()  # torch uses all cores for one call

    def decode(self, data: bytes) -> Picture:
        """Raises gpq.errors.ImageError."""
        with self._decoding:
            image = preprocess.load(data, self.max_pixels)
            return Picture(image.width, image.height, self.model.prepare(image))

    def encode(self, pictures: list[Picture]) -> list[bytes]:
        """Packed codes of ceil(M/2) bytes each."""
        codes: list[bytes] = []
        for first in range(0, len(pictures), BATCH):
            pixels = np.stack([p.pixels for p in pictures[first : first + BATCH]])
            with self._computing:
                packed = self.model.encode(pixels)
            codes += [row.tobytes() for row in packed]
        return codes

    def lut(self, picture: Picture) -> NDArray[np.float32]:
        """(1,M,K) float32."""
        with self._computing:
            return self.model.lut(picture.pixels[None])

    def score(self, lut: NDArray[np.float32], code: bytes) -> float:
        """What a scan with ``lut`` (1,M,K) gives this code."""
        packed = np.frombuffer(code, dtype=np.uint8)[None]
        scores = scan.build(packed, self.model.codebook.M, "reference").search(lut, 1)[1]
        return float(scores[0, 0])

    def lut_of_code(self, code: bytes) -> NDArray[np.float32]:
        """(1,M,K) float32 of a stored code."""
        with self._computing:
            return self.model.lut_of_code(np.frombuffer(code, dtype=np.uint8)[None].copy())
