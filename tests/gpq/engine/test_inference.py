import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gpq import winograd
from gpq.engine.inference import in_one_call
from gpq.model import artifact
from gpq.model.model import Model
from gpq.winograd.network import WinogradNetwork
from harness.models import SHIPPED
from service.models import artifacts


@pytest.fixture(scope="module")
def shipped() -> Model:
    return artifact.load(SHIPPED)


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes our own convolutions unavailable, so that torch runs the network."""
    monkeypatch.setattr(winograd, "missing", lambda: "it was not built")


@pytest.mark.usefixtures("by_torch")
def test_codes_are_the_same_traced(shipped: Model) -> None:
    assert isinstance(in_one_call(shipped).network, torch.jit.ScriptModule)
    assert_same_codes(shipped)


def test_codes_are_the_same_in_any_batch(shipped: Model) -> None:
    assert_same_codes(shipped)


def assert_same_codes(shipped: Model) -> None:
    fast = in_one_call(shipped)
    artifact.verify(fast, Path(SHIPPED))
    pixels = np.random.default_rng(3).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    for count in (1, 2, 7, 40):
        luts, expected = fast.lut(pixels[:count]), shipped.lut(pixels[:count])
        assert np.abs(luts - expected).max() < 1e-5
        assert (fast.encode(pixels[:count]) == shipped.encode(pixels[:count])).all()


class Halved(nn.Module):
    """A network that computes other features while it is traced."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = images.mean(dim=(2, 3)).repeat(1, 48)
        return features if torch.jit.is_tracing() else features + torch.linspace(0, 9, 144)


class Untraceable(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("cannot be traced")
        return images.mean(dim=(2, 3)).repeat(1, 48)


@pytest.mark.parametrize("network", [Halved(), Untraceable()])
def test_a_network_that_no_faster_way_reproduces_stays_as_it_is(
    shipped: Model, network: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    odd = replace(shipped, network=network)
    with caplog.at_level(logging.WARNING, "gpq"):
        assert in_one_call(odd) is odd
    assert "layer by layer" in caplog.text


def test_a_network_without_the_golden_codes_is_not_served(
    shipped: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(artifacts, "in_one_call", lambda model: replace(model, network=Halved()))
    model = artifacts.use(SHIPPED, "cpu")
    assert not isinstance(model.network, Halved)
    assert "golden vector 0" in caplog.text
    monkeypatch.undo()
    faster = (WinogradNetwork, torch.jit.ScriptModule)
    assert isinstance(artifacts.use(SHIPPED, "cpu").network, faster)
