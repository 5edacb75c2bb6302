from pathlib import Path

import numpy as np
import pytest
import torch

from gpq import artifact
from gpq.codebook import Codebook
from gpq.preprocess import Preprocess
from trainer.config import Config
from trainer.data import TrainingSet
from trainer.device import autocast
from trainer.errors import TrainerError
from trainer.export import separate, start_from
from trainer.model import GPQ
from trainer.recipe import RECIPES, Batches, Modern, Recipe


def config(recipe: str, logits: str = "averaged") -> Config:
    return Config(recipe, "resnet", 4, 32, 16, logits, 40, 8, 8, 0, "folder")


def pictures() -> TrainingSet:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)
    batch = torch.from_numpy(pixels)
    return TrainingSet(batch[:12], torch.arange(12) % 3, batch[12:], ("a", "b", "c"))


def recipe(name: str, logits: str = "averaged") -> Recipe:
    torch.manual_seed(0)
    wanted = config(name, logits)
    model = GPQ(wanted, 3).train()
    precision = autocast(torch.device("cpu"))
    return RECIPES[name](model, pictures(), Preprocess(32), wanted, precision)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("logits", ["averaged", "per-subspace"])
def test_a_step_reaches_every_parameter(name: str, logits: str) -> None:
    made = recipe(name, logits)
    total, parts = made.losses()
    total.backward()
    assert {"npair", "cls", "entropy"} <= set(parts)
    for parameter_name, parameter in made.model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_the_papers_optimiser() -> None:
    made = recipe("paper")
    adam, schedule = made.optimiser()
    assert isinstance(adam, torch.optim.Adam)
    assert adam.defaults["lr"] == 2e-4
    assert adam.defaults["betas"][0] == 0.5
    rates = []
    for _ in range(201):
        rates.append(adam.param_groups[0]["lr"])
        adam.step()
        schedule.step()
    assert rates[99] == pytest.approx(2e-4)
    assert rates[100] == pytest.approx(2e-4 * 0.95)
    assert rates[200] == pytest.approx(2e-4 * 0.95**2)
    assert (made.lambda_classification, made.lambda_entropy) == (0.1, 0.1)


def test_the_papers_batches_pass_the_network_apart() -> None:
    made = recipe("paper")
    sizes: list[int] = []
    made.model.F.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    made.losses()
    assert sizes == [8, 8]


def test_modern_learns_only_from_confident_pseudo_labels() -> None:
    made = recipe("modern")
    made.confidence = 1.1
    _, parts = made.losses()
    assert parts["confident"] == 0
    made.confidence = 0.0
    _, parts = made.losses()
    assert parts["confident"] == 1


def test_modern_ships_the_average_of_its_weights() -> None:
    made = recipe("modern")
    assert isinstance(made, Modern)
    before = made.average.Z.clone()
    with torch.no_grad():
        made.model.Z += 1
    made.after_step()
    moved = (made.average.Z - before).mean().item()
    assert 0 < moved < 1
    assert made.trained is made.average
    assert all(not p.requires_grad for p in made.average.parameters())


def test_batches_take_every_row_before_any_twice() -> None:
    batches = Batches(10, 4, torch.Generator().manual_seed(0))
    rows = torch.cat([batches.next() for _ in range(5)])
    assert sorted(rows[:10].tolist()) == list(range(10))
    assert sorted(rows[10:].tolist()) == list(range(10))
    assert len(Batches(3, 8, torch.Generator()).next()) == 8


def test_separate_merges_coincident_codewords_only() -> None:
    Z = torch.nn.functional.normalize(torch.randn(2, 16, 12), dim=-1)
    Z[0, 5] = Z[0, 7] = Z[0, 1]
    separated = separate(Z)
    assert torch.equal(separated[1], Z[1])
    rest = [k for k in range(16) if k not in (5, 7)]
    assert torch.equal(separated[0, rest], Z[0, rest])
    assert torch.allclose(separated.norm(dim=-1), torch.ones(2, 16))
    cosines = separated[0] @ separated[0].T - 2 * torch.eye(16)
    assert cosines.amax() < 0.999
    features = Z[:, 1].reshape(1, -1)
    assert Codebook(separated).encode(features)[0, 0] == 1
    assert Codebook(separated).margin(features) > 1e-3


def test_init_takes_over_network_and_codewords(random_model: Path) -> None:
    source = artifact.load(random_model)
    wanted = Config("modern", "resnet", 4, 32, 48, "averaged", 40, 8, 8, 0, "folder")
    torch.manual_seed(5)
    model = GPQ(wanted, 3)
    start_from(model, source, pictures(), wanted)
    images = Preprocess(32).normalise(pictures().labelled)
    assert torch.allclose(model.eval().features(images), source.network(images), atol=1e-4)
    assert torch.equal(model.Z, source.codebook.Z)
    with pytest.raises(TrainerError, match="same --bits"):
        start_from(GPQ(config("modern"), 3), source, pictures(), config("modern"))
