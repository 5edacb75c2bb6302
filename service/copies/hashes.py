"""Compares perceptual hashes by the scan: look-up tables hold the distances of four bits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpq.model.codebook import K
from gpq.pixels.perceptual import HASH_BYTES, turned

CODEBOOKS = 2 * HASH_BYTES  # each has four bits of the hash
TURNS = 8  # ways to turn and mirror an image, as ``turned`` numbers them
LARGEST_DISTANCE = 64  # that may be asked for, of 256 bits; unrelated images have about 128
DEFAULT_DISTANCE = 31  # Meta's recommendation for PDQ

# Bits that differ between two numbers of four bits.
_DIFFERENCES = np.bitwise_count(np.arange(K)[:, None] ^ np.arange(K)).astype(np.float32)


def distance_tables(hash: bytes) -> NDArray[np.float32]:
    """Returns look-up tables (TURNS,CODEBOOKS,K) whose scores are the negative distances of a hash,
    turned in each way, from others."""
    packed = np.frombuffer(b"".join(turned(hash)), np.uint8).reshape(TURNS, HASH_BYTES)
    parts = np.empty((TURNS, CODEBOOKS), np.uint8)
    parts[:, 0::2], parts[:, 1::2] = packed & 15, packed >> 4
    tables: NDArray[np.float32] = -_DIFFERENCES[parts]
    return tables


def nearest_turn(
    hash: bytes, others: Sequence[bytes]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the smallest distance of a hash, turned in any way, from each of others, and the
    number of that turn: two arrays (n,)."""
    variants = np.frombuffer(b"".join(turned(hash)), np.uint8).reshape(TURNS, 1, HASH_BYTES)
    stored = np.frombuffer(b"".join(others), np.uint8).reshape(1, len(others), HASH_BYTES)
    distances = np.bitwise_count(variants ^ stored).sum(axis=2, dtype=np.int64)
    return distances.min(axis=0), distances.argmin(axis=0)
