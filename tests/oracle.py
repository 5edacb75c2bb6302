"""Computes the correct results of searches from the artifact that a service uses."""

from functools import cache
from pathlib import Path

import numpy as np

from gpq.engine import engines
from gpq.model.codebook import unpack
from harness.images import png


class Oracle:
    """Scores images, which are identified by their seed (``harness.images.png``)."""

    def __init__(self, model: Path) -> None:
        self.model = engines.load(model)
        self.code = cache(self._code)
        self.lut = cache(self._lut)

    def score(self, query: int, stored: int) -> float:
        """Returns the float32 sum of the query's table over the stored image's code, in order."""
        total = np.float32(0)
        for m, sub_code in enumerate(self.code(stored)):
            total += self.lut(query)[m, sub_code]
        return float(total)

    def _pixels(self, seed: int) -> np.ndarray:
        return self.model.read(png(seed))[None]

    def _code(self, seed: int) -> list[int]:
        packed = self.model.encode(self._pixels(seed))
        return unpack(packed, self.model.codebook.M)[0].tolist()

    def _lut(self, seed: int) -> np.ndarray:
        return self.model.lut(self._pixels(seed))[0]
