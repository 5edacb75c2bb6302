"""Fixtures for all tests. What a group needs is imported only where it is used."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gpq import artifact, network
from gpq.codebook import Codebook, intra_normalise
from gpq.preprocess import Preprocess

HERE = Path(__file__).parent
SHIPPED = HERE.parent / "models" / "cifar10"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI a skipped test is a failed one: everything it needs can be installed there."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labeled/, train/ and test/ of CIFAR-10 pictures, <class>/NNNN.jpg."""
    root = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(HERE / "data" / "cifar10-sample.tar.xz") as archive:
        archive.extractall(root, filter="data")
    return root


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


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact of random weights."""
    folder = tmp_path_factory.mktemp("random-model")
    make_artifact(folder)
    return folder
