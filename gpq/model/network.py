"""Declares what runs the network of a model. ``gpq.engine`` has the implementations."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Network(Protocol):
    """A network F on a device; several threads may call it at once.

    ``engine``: the library that computes it. ``precision``: float32 or bfloat16, of its
    multiplications. ``device``: cpu or cuda. ``batches``: the sizes of batches that it has prepared
    itself for.
    """

    engine: str
    precision: str
    device: str
    batches: tuple[int, ...]

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Computes features (B,D) of pixels (B,3,S,S) on the 0–255 scale; B is at least 1.

        Raises RuntimeError if the network cannot be computed.
        """
        ...
