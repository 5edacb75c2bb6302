"""Ranks images by their float features, which no method has made shorter."""

import numpy as np

from trainer.methods import UNLABELLED, Method
from trainer.methods.base import Coder, Codes, Floats, Lesson
from trainer.methods.shallow.reduction import unit

NAME = "float features"


class FloatCoder(Coder):
    """Keeps features as they are: a code is the bytes of its numbers, of unit length together.
    Scores are cosines."""

    def encode(self, features: Floats) -> Codes:
        return np.ascontiguousarray(unit(features)).view(np.uint8)

    def scores(self, queries: Floats, codes: Codes) -> Floats:
        found: Floats = unit(queries) @ np.ascontiguousarray(codes).view(np.float32).T
        return found


def _learn(lesson: Lesson) -> Coder:
    return FloatCoder()


FLOATS = Method(_learn, UNLABELLED, served=False)


def bits_of(features: Floats) -> int:
    """Returns the length of the code of one image."""
    return 32 * int(features.shape[1])
