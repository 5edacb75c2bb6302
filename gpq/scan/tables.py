"""Checks the arguments of every scan engine."""

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ScanError
from gpq.model.codebook import K

LARGEST = float(np.finfo(np.float32).max)


def checked_codes(packed: NDArray[np.uint8], M: int) -> NDArray[np.uint8]:
    """Returns codes (n,ceil(M/2)) uint8; raises ScanError if they have another type or shape."""
    codes = np.asarray(packed)
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != (M + 1) // 2:
        raise ScanError(f"codes are {codes.dtype} {codes.shape}; expected uint8 (n,{(M + 1) // 2})")
    return codes


def checked_shape(luts: NDArray[np.float32], M: int, k: int) -> NDArray[np.float32]:
    """Returns contiguous look-up tables (Q,M,K) float32.

    Raises ScanError if the shape is wrong or if k < 1.
    """
    tables = np.ascontiguousarray(luts, dtype=np.float32)
    if tables.ndim != 3 or tables.shape[1:] != (M, K):
        raise ScanError(f"look-up tables are {tables.shape}; expected (Q,{M},{K})")
    if k < 1:
        raise ScanError(f"k is {k}; it must be at least 1")
    return tables


def checked_rows(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Returns rows (n,) int64; raises ScanError if one is not from 0 to ``count`` - 1."""
    numbers = np.asarray(rows, dtype=np.int64)
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= count):
        raise ScanError(f"a row lies outside 0…{count - 1}")
    return numbers


def require_finite(tables: NDArray[np.float32]) -> None:
    """Raises ScanError if a value is not finite or if a score could overflow."""
    if not np.isfinite(tables).all():
        raise ScanError("a look-up table has a value that is not finite")
    # Summed in the same order as in the native engine.
    magnitudes = np.abs(tables).max(axis=2, initial=0).cumsum(axis=1, dtype=np.float64)
    if (magnitudes > LARGEST).any():
        raise ScanError("the values of a look-up table are too large to be added in float32")
