"""Computes perceptual hashes: PDQ (Meta, 2019), in which copies of an image differ in few bits.

The hash consists of 256 bits: which of the 16 × 16 lowest frequencies of a discrete cosine
transform, in both directions, are above their median. It needs the package pdqhash.
"""

import importlib.util

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# PDQ samples 64 × 64 places. With five pixels between them, they lie alike from either side, so
# that the hash of a mirrored image is that of the image with other signs.
SIDE = 320
SIDE_BITS = 16
HASH_BYTES = SIDE_BITS**2 // 8
QUALITIES = 101  # from 0 for a plain image to 100


def missing() -> str:
    """Returns why hashes cannot be computed here, or ""."""
    if importlib.util.find_spec("pdqhash") is None:
        return "pdqhash is not installed: pip install 'gpq-search[copies]'"
    return ""


def pdq(image: Image.Image) -> tuple[bytes, int]:
    """Returns the hash (HASH_BYTES) of an RGB image, and its quality, below QUALITIES.

    The image is scaled to SIDE × SIDE pixels first, whatever its shape. Plain images have a low
    quality, and hashes that say little.
    """
    import pdqhash  # an extra

    small = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    bits, quality = pdqhash.compute(np.asarray(small))
    return np.packbits(bits.astype(np.uint8)).tobytes(), int(quality)


def turned(hash: bytes) -> list[bytes]:
    """Returns the hashes that an image probably has when it is mirrored, turned or both.

    The first four are turned clockwise by 0°, 90°, 180° and 270°; the last four are mirrored left
    to right before they are turned. A mirrored frequency has the other sign, so it is on the other
    side of the median, unless it is near it: a few bits in a hundred differ from those of a hash
    that is computed.
    """
    bits = np.unpackbits(np.frombuffer(hash, np.uint8)).reshape(SIDE_BITS, SIDE_BITS)
    variants = []
    for each in (bits, _mirrored(bits)):
        found = each
        for _ in range(4):
            variants.append(np.packbits(found).tobytes())
            found = _mirrored(found.T)  # a quarter clockwise is to transpose, and to mirror
    return variants


def _mirrored(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Changes the sign of the frequencies that are odd in the direction of the columns.

    The columns are stored in descending order of frequency, 16 to 1.
    """
    odd = np.arange(SIDE_BITS) % 2 == 1
    return np.where(odd, 1 - bits, bits)
