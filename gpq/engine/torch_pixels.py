"""Turns tensors of pixels into the input of a network, on any device."""

from functools import lru_cache

import torch
from torch import Tensor

from gpq.pixels.preprocess import Preprocess


def normalise(rules: Preprocess, pixels: Tensor) -> Tensor:
    """Pixels (B,3,H,W) on the 0–255 scale, of any dtype -> float32 network input.

    The values are those of ``Preprocess.normalise``.
    """
    mean, std = (_channels(of_each, pixels.device) for of_each in (rules.mean, rules.std))
    return (pixels.float() - mean) / std


@lru_cache(maxsize=64)
def _channels(of_each: tuple[float, float, float], device: torch.device) -> Tensor:
    """Returns a value for each channel as (3,1,1) float32.

    The tensor is cached because copying it to a GPU waits for the GPU, and cannot be part of a
    CUDA graph.
    """
    with torch.inference_mode(False):
        return torch.tensor(of_each, device=device).view(3, 1, 1)
