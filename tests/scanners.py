"""Codes, look-up tables and scanners for the tests of all scan engines."""

import numpy as np
import torch

from gpq import scan
from gpq.scan.cuda.scanner import CudaScanner
from gpq.scan.cuda.shards import ShardedScanner
from gpq.scan.reference import ReferenceScanner
from gpq.scan.scanner import Scanner

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def build(packed: np.ndarray, M: int, engine: str) -> Scanner:
    """Builds a scanner; "cuda, sharded" has three shards on one device.

    The CUDA engine runs in Triton's interpreter if there is no GPU.
    """
    if engine == "cuda":
        return CudaScanner(packed, M, DEVICE)
    if engine == "cuda, sharded":
        return ShardedScanner([CudaScanner(packed[n::3], M, DEVICE) for n in range(3)])
    return scan.build(packed, M, engine)


def codes_like(kind: str, n: int, M: int, random: np.random.Generator) -> np.ndarray:
    """Draws packed codes (n,ceil(M/2)) uint8 of a kind."""
    if kind == "clustered":
        centres = random.integers(0, 16, (7, M), dtype=np.uint8)[random.integers(0, 7, n)]
        noise = random.integers(0, 16, (n, M), dtype=np.uint8)
        codes = np.where(random.random((n, M)) < 0.2, noise, centres)
    else:
        codes = random.integers(0, {"uniform": 16, "few": 2, "one": 1}[kind], (n, M), np.uint8)
    if M % 2:
        codes = np.concatenate([codes, np.zeros((n, 1), np.uint8)], axis=1)
    return codes[:, 0::2] | codes[:, 1::2] << 4


def luts_like(kind: str, Q: int, M: int, random: np.random.Generator) -> np.ndarray:
    """Draws look-up tables (Q,M,16) float32 of a kind."""
    luts = random.standard_normal((Q, M, 16))
    if kind == "levels":
        luts = np.round(luts) / 7
    elif kind == "mixed":
        luts *= 10.0 ** random.integers(-30, 30, (Q, M, 1))
    else:
        luts *= {"normal": 1, "huge": 1e36, "denormal": 1e-42, "equal": 0, "negative": -1}[kind]
    return luts.astype(np.float32) - np.float32(kind == "negative")


def assert_same(scanner: Scanner, reference: ReferenceScanner, luts, k, *more) -> None:
    """Asserts that a scanner finds the rows and scores of the reference, bit by bit."""
    rows, scores = scanner.search(luts, k, *more)
    expected_rows, expected_scores = reference.search(luts, k, *more)
    assert rows.tolist() == expected_rows.tolist()
    assert scores.tobytes() == expected_scores.tobytes()
