"""Model artifacts for tests and benchmarks."""

from pathlib import Path

import numpy as np
import torch

from gpq.model import artifact, network
from gpq.model.codebook import Codebook, intra_normalise
from gpq.pixels.preprocess import Preprocess
from harness import ROOT

SHIPPED = ROOT / "models" / "cifar10"


def make_artifact(folder: Path, seed: int = 0, M: int = 12) -> str:
    """A valid artifact of random weights; returns its id."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = network.build("resnet", M * 12, 4)
    Z = intra_normalise(torch.randn(16, M * 12, generator=generator), M).transpose(0, 1)
    examples = np.random.default_rng(seed).integers(0, 256, (256, 3, 32, 32), dtype=np.uint8)
    about = {"classes": ["a", "b"], "measured": None}
    described = {"name": "resnet", "width": 4}
    return artifact.save(
        folder, net, Codebook(Z.contiguous()), described, Preprocess(32), about, examples
    )
