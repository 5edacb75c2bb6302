"""The views of an image that a frozen part sees: always the same ones for the same image."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.components import augment
from trainer.components.views import PLAIN, is_weak


def digest_of(pixels: NDArray[np.uint8]) -> bytes:
    """Returns a hash of prepared pixels (3,S,S), by which features are cached."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=32).digest()


def key_of(part: str, digest: bytes, view: int, seed: int) -> bytes:
    """Returns the key of the features of a view.

    ``part``: all that determines features besides pixels. ``digest``: of the image. The ``seed``
    has no effect on the first two views.
    """
    told = f"{part}|{view}|{seed if view >= PLAIN else ''}|".encode()
    return hashlib.blake2b(told + digest, digest_size=32).digest()


def view_of(pixels: NDArray[np.uint8], digest: bytes, view: int, seed: int) -> NDArray[np.uint8]:
    """Returns a view of an image (3,S,S) uint8: itself, its mirror image, or an augmentation.

    The random numbers of an augmentation depend on the content of the image, on the view and on
    the seed alone.
    """
    if view == 0:
        return pixels
    if view == 1:
        return np.ascontiguousarray(pixels[:, :, ::-1])
    told = hashlib.blake2b(digest + f"|{view}|{seed}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(told) >> 1)
    image = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    change = augment.weak if is_weak(view) else augment.strong
    changed: Tensor = change(image, generator)[0].round_().clamp_(0, 255)
    found: NDArray[np.uint8] = changed.to(torch.uint8).numpy()
    return found
