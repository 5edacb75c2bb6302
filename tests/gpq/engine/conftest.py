"""Fixtures for the tests of engines."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from gpq.engine import engines, torch_architectures
from gpq.model import artifact, golden
from gpq.model.codebook import K, intra_normalise
from gpq.pixels.preprocess import Preprocess


@pytest.fixture(scope="session")
def torch_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a small artifact of format 3, which only torch can run."""
    folder = tmp_path_factory.mktemp("torch-model")
    torch.manual_seed(0)
    network = torch_architectures.build("resnet32", 144, 4)
    random = np.random.default_rng(0)
    words = random.standard_normal((K, 144), dtype=np.float32)
    tensors = {f"F.{name}": tensor.numpy() for name, tensor in network.state_dict().items()}
    tensors["Z"] = np.ascontiguousarray(intra_normalise(words, 12).transpose(1, 0, 2))
    compute = {
        "M": 12, "K": K, "d": 12,
        "network": {"name": "resnet32", "width": 4},
        "preprocess": asdict(Preprocess(32)),
    }  # fmt: skip
    artifact.write(folder, save(tensors), None, compute, {})
    model = engines.start(artifact.load(folder))
    pixels = random.integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
    about = {"golden": golden.choose(model, pixels)}
    artifact.write(folder, save(tensors), None, compute, about)
    return folder
