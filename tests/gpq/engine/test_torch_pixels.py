import numpy as np
import pytest
import torch

from gpq.engine import torch_pixels
from gpq.pixels.preprocess import Preprocess


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_tensors_are_normalised_like_arrays(dtype: torch.dtype) -> None:
    rules = Preprocess(32)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    found = torch_pixels.normalise(rules, torch.from_numpy(pixels).to(dtype))
    assert found.dtype == torch.float32
    assert (found.numpy() == rules.normalise(pixels)).all()


def test_values_made_while_encoding_can_be_trained_with() -> None:
    """They are cached, and must not be inference tensors."""
    rules = Preprocess(32, mean=(1.0, 2.0, 3.0))
    with torch.inference_mode():
        torch_pixels.normalise(rules, torch.zeros(1, 3, 2, 2))
    pixels = torch.ones(1, 3, 2, 2, requires_grad=True)
    torch_pixels.normalise(rules, pixels).square().sum().backward()
    assert (pixels.grad != 0).any()
