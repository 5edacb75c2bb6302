"""Encoding where memory runs out; a card that is full is played by a network that says so."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gpq import artifact, fallback
from gpq.fallback import Fallback
from gpq.model import Model


class Card(nn.Module):
    """Has memory for so many pictures at once, while it is on the card."""

    def __init__(self, network: nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room, self.on_card = network, room, True
        self.seen: list[int] = []

    def cpu(self) -> "Card":
        self.on_card = False
        return self

    def to(self, device: torch.device) -> "Card":
        if self.room == 0:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.on_card = True
        return self

    def forward(self, images: Tensor) -> Tensor:
        if self.on_card and len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        self.seen.append(len(images))
        return self.network(images)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (13, 3, 32, 32), dtype=np.uint8)


def on_card(folder: Path, room: int) -> tuple[Model, Model, Card]:
    model = artifact.load(folder)
    card = Card(model.network, room)
    return model, replace(model, network=card), card


def test_batches_are_halved_until_there_is_room(random_model: Path, pixels: np.ndarray) -> None:
    model, full, card = on_card(random_model, 4)
    times: list[None] = []
    found = Fallback(lambda: times.append(None)).run(Model.encode, full, pixels)
    assert (found == model.encode(pixels)).all()
    assert card.seen == [3, 3, 3, 4]
    assert len(times) == 3
    assert card.on_card


def test_without_room_for_one_the_cpu_encodes_until_there_is_room_again(
    random_model: Path,
    pixels: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, full, card = on_card(random_model, 0)
    careful = Fallback()
    for compute in (Model.lut, Model.encode):
        found = careful.run(compute, full, pixels)
        assert np.abs(found - compute(model, pixels)).max() < 1e-6
    assert not card.on_card
    assert caplog.text.count("is on the CPU for now: CUDA out of memory.") == 1
    monkeypatch.setattr(fallback, "RETRY_SECONDS", 0)
    card.seen.clear()
    careful._move(full)
    careful.run(Model.encode, full, pixels)
    assert not card.on_card
    card.room = 100
    careful.run(Model.encode, full, pixels)
    assert card.on_card
    assert card.seen == [13, 13]
