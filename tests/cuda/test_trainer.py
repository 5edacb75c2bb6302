"""Training on a card; run by ``make gpu``."""

from pathlib import Path

import pytest
import torch

from gpq import artifact
from gpq.preprocess import Preprocess
from tests.test_recipe import config, pictures
from trainer import loop
from trainer.device import autocast
from trainer.export import export
from trainer.holdout import HeldOut
from trainer.model import GPQ
from trainer.recipes import RECIPES

pytestmark = pytest.mark.cuda
CARD = torch.device("cuda")


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_on_the_card_reaches_every_parameter(name: str) -> None:
    wanted = config(name, bits=16, details=1 if name == "modern" else 0)
    model = GPQ(wanted, 3).to(CARD).train()
    made = RECIPES[name](model, pictures().to(CARD), Preprocess(32), wanted, autocast(CARD))
    total, parts = made.losses()
    total.backward()
    assert total.isfinite()
    assert all(value.device.type == "cuda" for value in parts.values())
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_on_the_card_is_checked_stopped_resumed_and_served_on_the_cpu(
    name: str, tmp_path: Path
) -> None:
    wanted = config(name, steps=20)
    held = HeldOut(pictures().labelled, pictures().labels)
    data, rules = pictures().to(CARD), Preprocess(32)
    model = GPQ(wanted, 3).to(CARD)
    result = loop.run(model, data, held, rules, wanted, tmp_path, CARD, None)
    assert 0 < result.held_out["mAP"] <= 1
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True, map_location="cpu")
    again = loop.run(GPQ(wanted, 3).to(CARD), data, held, rules, wanted, tmp_path, CARD, saved)
    assert again.held_out == result.held_out
    export(result.model, wanted, rules, data, tmp_path, {})
    assert artifact.load(tmp_path).device.type == "cpu"
