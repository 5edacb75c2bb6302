"""Searches by several examples: what hits are like, and what they are not like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

NEGATIVE_WEIGHT = 0.5  # what negative examples count, beside positive ones


@dataclass(frozen=True)
class Example:
    """An upload, or the id of a stored image. ``weight``: below 0 for a negative example."""

    query: BinaryIO | str
    weight: float


def combined(
    examples: Sequence[Example], tables: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Returns one look-up table (M,K) for the tables of examples, of which one must be positive.

    Its scores are the weighted sum of the examples' scores, divided by the weights of the positive
    examples: one scan serves, since scores are sums over look-up tables.
    """
    whole = sum(example.weight for example in examples if example.weight > 0)
    table = np.zeros(tables[0].shape, dtype=np.float64)
    for example, each in zip(examples, tables, strict=True):
        table += example.weight / whole * each
    return table.astype(np.float32)
