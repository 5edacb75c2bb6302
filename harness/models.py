"""Makes model artifacts with random weights, and names the shipped one."""

from pathlib import Path

import numpy as np
import torch

from gpq.model import artifact, network
from gpq.model.codebook import Codebook, intra_normalise
from gpq.pixels.preprocess import JPEG_WHOLE, Preprocess
from harness import ROOT

SHIPPED = ROOT / "models" / "cifar10"


def make_artifact(
    folder: Path,
    seed: int = 0,
    M: int = 12,
    *,
    name: str = "resnet",
    width: int | None = 4,
    size: int = 32,
    jpeg: str = JPEG_WHOLE,
    examples: int = 256,
) -> str:
    """Writes a valid artifact with random weights to ``folder``, and returns its id.

    ``M``: number of codebooks. ``name``, ``width``: the network, see ``network.build``.
    ``size``, ``jpeg``: see ``Preprocess``. ``examples``: number of random images from which the
    artifact's golden vectors are chosen.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = network.build(name, M * 12, width)
    words = torch.randn(16, M * 12, generator=generator).numpy()
    Z = intra_normalise(words, M).transpose(1, 0, 2)
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (examples, 3, size, size), dtype=np.uint8)
    about = {"classes": ["a", "b"], "measured": None}
    described = {"name": name, "width": width}
    rules = Preprocess(size, jpeg=jpeg)
    return artifact.save(
        folder, net, Codebook(np.ascontiguousarray(Z)), described, rules, about, pixels
    )
