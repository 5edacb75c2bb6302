"""Tests training on a GPU; ``make gpu`` runs them."""

from pathlib import Path

import pytest
import torch

from gpq.engine import engines
from gpq.pixels.preprocess import Preprocess
from tests.trainer.recipes.test_recipe import config, image_set
from trainer.artifacts.export import examples_of, export
from trainer.components.model import GPQ
from trainer.device import autocast
from trainer.evaluation.holdout import HeldOut
from trainer.recipes import RECIPES
from trainer.training import loop
from trainer.training.step import TrainingStep

pytestmark = pytest.mark.cuda
GPU = torch.device("cuda")


@pytest.mark.parametrize("name", ["paper", "modern"])
def test_a_step_on_the_gpu_reaches_every_parameter(name: str) -> None:
    wanted = config(name, bits=16, details=1 if name == "modern" else 0)
    model = GPQ(wanted, 3).to(GPU).train()
    made = RECIPES[name](model, image_set().to(GPU), Preprocess(32), wanted, autocast(GPU))
    total, parts = made.losses(made.draw())
    total.backward()
    assert total.isfinite()
    assert all(value.device.type == "cuda" for value in parts.values())
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", ["paper", "modern"])
def test_steps_of_a_graph_are_those_without_one(name: str) -> None:
    """Each replay has its own rows, views, rates and averages, as if launched one by one."""
    found = []
    for graph in (False, True):
        torch.manual_seed(0)
        wanted = config(name, bits=48, details=4 if name == "modern" else 0, steps=20)
        model = GPQ(wanted, 3).to(GPU, memory_format=torch.channels_last).train()
        made = RECIPES[name](model, image_set().to(GPU), Preprocess(32), wanted, autocast(GPU))
        optimiser, schedule = made.optimiser()
        step = TrainingStep(made, optimiser, graph=graph)
        totals = []
        for _ in range(12):
            totals.append(step()[0].item())
            schedule.step()
        assert (step._graph is not None) == graph
        weights = torch.cat([p.detach().flatten() for p in made.trained.parameters()])
        found.append((totals, weights))
    (totals, weights), (of_graph, recorded) = found
    assert len(set(of_graph)) == 12
    assert of_graph == pytest.approx(totals, rel=0.02)
    # All weights together: Adam may move a weight with hardly any gradient either way.
    assert (weights - recorded).norm() < 0.05 * weights.norm()


@pytest.mark.parametrize("name", ["paper", "modern"])
def test_a_run_on_the_gpu_is_checked_stopped_resumed_and_served_on_the_cpu(
    name: str, tmp_path: Path
) -> None:
    wanted = config(name, steps=20)
    held = HeldOut(image_set().labelled, image_set().labels)
    data, rules = image_set().to(GPU), Preprocess(32)
    model = GPQ(wanted, 3).to(GPU)
    result = loop.run(model, data, held, rules, wanted, tmp_path, GPU, None)
    assert 0 < result.held_out["mAP"] <= 1
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True, map_location="cpu")
    again = loop.run(GPQ(wanted, 3).to(GPU), data, held, rules, wanted, tmp_path, GPU, saved)
    assert again.held_out == result.held_out
    export(result.model, wanted, rules, data, examples_of(data), tmp_path, {})
    assert engines.load(tmp_path).network.device == "cpu"
