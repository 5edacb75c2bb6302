"""What every engine asks of its arguments."""

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ScanError
from gpq.model.codebook import K

LARGEST = float(np.finfo(np.float32).max)


def checked_codes(packed: NDArray[np.uint8], M: int) -> NDArray[np.uint8]:
    """Codes (n,ceil(M/2)) uint8; raises ScanError."""
    codes = np.asarray(packed)
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != (M + 1) // 2:
        raise ScanError(f"codes are {codes.dtype} {codes.shape}; expected uint8 (n,{(M + 1) // 2})")
    return codes


def checked_shape(luts: NDArray[np.float32], M: int, k: int) -> NDArray[np.float32]:
    """Look-up tables (Q,M,K) float32, contiguous; raises ScanError."""
    tables = np.ascontiguousarray(luts, dtype=np.float32)
    if tables.ndim != 3 or tables.shape[1:] != (M, K):
        raise ScanError(f"look-up tables are {tables.shape}; expected (Q,{M},{K})")
    if k < 1:
        raise ScanError(f"k is {k}; ask for at least one hit")
    return tables


def checked_rows(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(n,) int64, each from 0 to ``count`` - 1; raises ScanError."""
    numbers = np.asarray(rows, dtype=np.int64)
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= count):
        raise ScanError(f"rows lie outside 0…{count - 1}")
    return numbers


def require_finite(tables: NDArray[np.float32]) -> None:
    """Raises ScanError where a value is not finite, or where a score could overflow."""
    if not np.isfinite(tables).all():
        raise ScanError("a look-up table has values that are not finite")
    # One after the other, as the native engine adds them.
    magnitudes = np.abs(tables).max(axis=2, initial=0).cumsum(axis=1, dtype=np.float64)
    if (magnitudes > LARGEST).any():
        raise ScanError("the values of a look-up table are too large to be added in float32")
