import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot
from torch.utils._python_dispatch import TorchDispatchMode

from gpq.engine import torch_pixels
from gpq.model.codebook import Codebook
from gpq.pixels.preprocess import Preprocess
from trainer.artifacts.export import start_from
from trainer.components import losses
from trainer.components.assignment import separate
from trainer.components.model import GPQ
from trainer.components.source import Source, read
from trainer.config import LAMBDAS, LEARNING_RATES, Config, default_details
from trainer.data.image_sets import TrainingSet
from trainer.device import autocast
from trainer.errors import TrainerError
from trainer.recipes import RECIPES, Modern, Recipe
from trainer.recipes.confidence import Confidence

WITH_PROTOTYPES = ("paper", "modern")  # the others learn on features; see test_distilled.py


def config(recipe: str, **more: object) -> Config:
    settings = {
        "variant": "gpq", "network": "resnet", "width": 4, "size": 32, "bits": 16, "details": 0,
        "logits": "averaged", "steps": 40, "batch_labelled": 8, "batch_unlabelled": 8,
        "learning_rate": LEARNING_RATES[recipe], "lambda1": LAMBDAS[recipe][0],
        "lambda2": LAMBDAS[recipe][1], "held_out": 0.0, "seed": 0, "dataset": "folder",
        "init": "", "teacher": "", "compile": "",
    }  # fmt: skip
    return Config(recipe, **{**settings, **more})


def image_set() -> TrainingSet:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)
    batch = torch.from_numpy(pixels)
    return TrainingSet(batch[:12], one_hot(torch.arange(12) % 3), batch[12:], ("a", "b", "c"))


def recipe(name: str, **more: object) -> Recipe:
    torch.manual_seed(0)
    wanted = config(name, **more)
    model = GPQ(wanted, 3).train()
    precision = autocast(torch.device("cpu"))
    return RECIPES[name](model, image_set(), Preprocess(32), wanted, precision)


class _NothingFromTheHost(TorchDispatchMode):
    """Refuses what a CUDA graph cannot record: numbers of the host, shapes that depend on data."""

    operations = ("lift_fresh", "nonzero", "masked_select", "unique")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert not any(name in str(function) for name in self.operations), function
        return function(*args, **(kwargs or {}))


def require_nothing_from_the_host(made: Recipe) -> None:
    """Checks a step after the first, as a CUDA graph records it."""
    made.losses(made.draw())
    batch = made.draw()
    with _NothingFromTheHost():
        made.losses(batch)[0].backward()
        made.clip_gradients()
        made.after_step()


@pytest.mark.parametrize("name", WITH_PROTOTYPES)
def test_a_step_takes_nothing_from_the_host(name: str) -> None:
    require_nothing_from_the_host(recipe(name, bits=16, details=1 if name == "modern" else 0))


@pytest.mark.parametrize("name", WITH_PROTOTYPES)
@pytest.mark.parametrize("logits", ["averaged", "per-subspace"])
def test_a_step_reaches_every_parameter(name: str, logits: str) -> None:
    made = recipe(name, logits=logits)
    total, parts = made.losses(made.draw())
    total.backward()
    assert {"npair", "cls", "entropy"} <= set(parts)
    for parameter_name, parameter in made.model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_batches_are_moved_to_the_device() -> None:
    made = recipe("modern")
    made.device = torch.device("meta")
    batch = made.draw()
    assert {part.device.type for part in (batch.labelled, batch.labels, batch.unlabelled)} == {
        "meta"
    }


def test_only_modern_scales_gradients_down() -> None:
    for name, norm in (("modern", 5), ("paper", 4000**0.5)):
        made = recipe(name)
        made.model.Z.grad = torch.zeros_like(made.model.Z)
        made.model.Z.grad.view(-1)[:40] = 10
        made.clip_gradients()
        assert made.model.Z.grad.norm().item() == pytest.approx(norm, rel=1e-4)


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
    assert (made.config.lambda1, made.config.lambda2) == (0.1, 0.1)


def test_the_papers_variants() -> None:
    hashed = recipe("paper", variant="gpq-h", details=4)  # no codebook has prototypes
    total, parts = hashed.losses(hashed.draw())
    total.backward()
    assert set(parts) == {"npair"}
    assert hashed.model.C.numel() == 0
    Z = torch.nn.functional.normalize(hashed.model.Z, dim=-1)
    assert torch.equal(hashed.model.codewords(), Z)
    assert (hashed.model.Z.grad.abs().sum(dim=(1, 2)) > 0).all()
    triplets = recipe("paper", variant="gpq-t")
    assert set(triplets.losses(triplets.draw())[1]) == {"triplet", "cls", "entropy"}


def test_the_papers_batches_pass_the_network_separately() -> None:
    made = recipe("paper")
    sizes: list[int] = []
    made.model.F.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    made.losses(made.draw())
    assert sizes == [8, 8]


def test_details_reach_every_parameter_and_have_no_prototypes() -> None:
    made = recipe("modern", bits=16, details=1)
    assert made.model.C.shape == (3, 3, 12)
    assert made.config.prefixes == (3,)
    total, parts = made.losses(made.draw())
    total.backward()
    assert parts["details"] > 0
    assert (made.model.Z.grad.abs().sum(dim=(1, 2)) > 0).all()
    with torch.no_grad():
        made.model.C += 1
    before = made.model.codewords()
    with torch.no_grad():
        made.model.C.neg_()
    moved = (made.model.codewords() - before).abs().sum(dim=(1, 2))
    assert (moved[:3] > 0).all() and moved[3] == 0


def test_nested_bits_are_prefixes_and_the_classes_codebooks_the_last() -> None:
    assert config("modern", bits=48, details=4).prefixes == (3, 6, 8)
    assert config("modern", bits=48, details=0).prefixes == (3, 6, 8, 12)
    assert config("modern", bits=12).prefixes == (3,)
    assert [default_details(bits) for bits in (12, 32, 48, 64)] == [0, 0, 4, 8]


def test_modern_weights_pseudo_labels_by_their_certainty(monkeypatch) -> None:
    made = recipe("modern")
    monkeypatch.setattr(made, "confidence", lambda p: (p.argmax(dim=1), torch.zeros(len(p))))
    _, unsure = made.losses(made.draw())
    made = recipe("modern")
    monkeypatch.setattr(made, "confidence", lambda p: (p.argmax(dim=1), torch.ones(len(p))))
    _, sure = made.losses(made.draw())
    assert (unsure["sure"], sure["sure"]) == (0, 1)
    assert sure["cls"] > unsure["cls"]


def test_images_of_several_classes_get_shares_of_them(monkeypatch) -> None:
    asked: list[torch.Tensor] = []
    similarity = losses.class_similarity
    monkeypatch.setattr(losses, "class_similarity", lambda y: asked.append(y) or similarity(y))
    made = recipe("modern")
    made.losses(made.draw())
    several = replace(made.data, labels=torch.tensor([[1, 1, 0], [0, 1, 1]] * 6))
    made.data = several
    made.begin()
    made.losses(made.draw())
    one, more = (labels[8:].float() for labels in asked)
    assert ((one == 0) | (one == 1)).all()
    assert torch.allclose(more.sum(dim=1), torch.ones(8))
    assert (more.amax(dim=1) < 1).all()


def test_no_label_is_predicted_if_all_images_have_labels(monkeypatch) -> None:
    made = recipe("modern")
    data = made.data
    made.data = TrainingSet(data.labelled, data.labels, data.labelled, data.classes)
    monkeypatch.setattr(made, "confidence", None)  # must not be used
    assert made.losses(made.draw())[1]["sure"] == 1
    batch = made.draw()
    rows = [int((data.labelled == one).flatten(1).all(dim=1).nonzero()) for one in batch.unlabelled]
    assert torch.equal(batch.known, data.labels[rows])


def test_the_labels_of_a_teacher_have_full_weight(monkeypatch) -> None:
    made = recipe("modern")
    guesses = torch.softmax(torch.randn(12, 3), dim=1)
    made.data = replace(made.data, guesses=guesses)
    monkeypatch.setattr(made, "confidence", None)  # must not be used
    monkeypatch.setattr(made, "average", None)  # must not be used either
    total, parts = made.losses(made.draw())
    total.backward()
    assert parts["sure"] == 1
    batch, pixels = made.draw(), made.data.unlabelled
    rows = [int((pixels == one).flatten(1).all(dim=1).nonzero()) for one in batch.unlabelled]
    assert torch.equal(batch.known, guesses[rows])


def test_weights_are_one_above_the_mean_and_fall_below_it() -> None:
    confidence = Confidence(2, torch.device("cpu"))
    p = torch.tensor([0.55, 0.7, 0.9, 0.99])
    both = torch.cat([p, 1 - p])
    probabilities = torch.stack([both, 1 - both], dim=1)
    for _ in range(2000):
        classes, weights = confidence(probabilities)
    assert classes.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    mean, deviation = p.mean().item(), p.std(unbiased=False).item()
    assert confidence.mean.item() == pytest.approx(mean, abs=1e-4)
    expected = [math.exp(-2 * ((v - mean) / deviation) ** 2) if v < mean else 1 for v in p.tolist()]
    assert weights.tolist() == pytest.approx(expected * 2, abs=1e-3)


def test_classes_the_teacher_prefers_have_less_weight() -> None:
    confidence = Confidence(2, torch.device("cpu"))
    often = torch.tensor([[0.8, 0.2]]).repeat(9, 1)
    rare = torch.tensor([[0.3, 0.7]])
    for _ in range(1000):
        classes, weights = confidence(torch.cat([often, rare]))
    assert classes.tolist() == [0] * 9 + [1]
    assert weights[-1] > weights[0]


def test_confidence_goes_on_from_its_state() -> None:
    first, second = (Confidence(3, torch.device("cpu")) for _ in range(2))
    probabilities = torch.softmax(torch.randn(8, 3), dim=1)
    first(probabilities)
    second.load_state(first.state())
    assert torch.equal(first(probabilities)[1], second(probabilities)[1])


def test_modern_keeps_the_average_of_its_weights() -> None:
    made = recipe("modern")
    assert isinstance(made, Modern)
    before = made.average.Z.clone()
    with torch.no_grad():
        made.model.Z += 1
    made.draw()
    made.after_step()
    moved = (made.average.Z - before).mean().item()
    assert 0 < moved < 1
    assert made.trained is made.average
    assert all(not p.requires_grad for p in made.average.parameters())


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
    features = Z[:, 1].reshape(1, -1).numpy()
    codebook = Codebook(separated.numpy())
    assert codebook.encode(features)[0, 0] == 1
    assert codebook.margin(features) > 1e-3


def spread_out(folder: Path) -> Source:
    """Returns a model whose features have mean zero over ``image_set()``: no codebook is dead."""
    source = read(folder)
    with torch.no_grad():
        raw = source.network(torch_pixels.normalise(source.artifact.rules, image_set().labelled))
        source.network.project.bias -= raw.mean(dim=0)
    return source


def test_init_uses_the_network_and_the_codewords(trained_model: Path) -> None:
    source, rules = spread_out(trained_model), Preprocess(32)
    torch.manual_seed(5)
    model = GPQ(config("modern", bits=48, details=4), 3)
    start_from(model, source, image_set(), rules)
    images = torch_pixels.normalise(rules, image_set().labelled)
    features = model.eval().features(images)
    assert torch.allclose(features, source.network(images), atol=1e-4)
    assert torch.equal(model.Z, torch.tensor(source.artifact.codebook.Z))
    mean = model.sub_vectors(features)[:, 0][image_set().labels[:, 1].bool()].mean(dim=0)
    assert torch.allclose(model.C[0, 1], mean / mean.norm(), atol=1e-4)


def test_init_keeps_random_values_for_dead_codebooks(trained_model: Path) -> None:
    source = spread_out(trained_model)
    last = source.network.project
    with torch.no_grad():
        last.weight[96:120] = 0  # codebooks 8 and 9: the same sub-vector for every image
        last.bias[96:120] = 1
    torch.manual_seed(5)
    model = GPQ(config("modern", bits=48, details=2), 3)
    drawn, words = model.F.project.weight.clone(), model.Z.clone()
    started = torch.tensor(source.artifact.codebook.Z)
    start_from(model, source, image_set(), Preprocess(32))
    for m in range(12):
        rows = slice(12 * m, 12 * m + 12)
        part, codewords = (drawn, words) if m in (8, 9) else (last.weight, started)
        assert torch.equal(model.F.project.weight[rows], part[rows])
        assert torch.equal(model.Z[m], codewords[m])


def test_init_of_a_shorter_code_uses_the_first_codebooks(trained_model: Path) -> None:
    source = spread_out(trained_model)
    model = GPQ(config("modern", bits=16), 3)
    start_from(model, source, image_set(), Preprocess(32))
    assert torch.equal(model.Z, torch.tensor(source.artifact.codebook.Z[:4]))
    last = source.network.project
    assert torch.equal(model.F.project.weight, last.weight[:48])
    assert torch.equal(model.F.project.bias, last.bias[:48])


def test_init_of_more_bits_and_other_size_uses_all_layers_except_the_last(
    trained_model: Path,
) -> None:
    source = read(trained_model)
    model = GPQ(config("modern", bits=64, network="resnet64", size=64), 3)
    last = model.F.project.weight.clone()
    start_from(model, source, image_set(), Preprocess(64))
    assert torch.equal(model.F.project.weight, last)
    stem = source.network.state_dict()["stem.0.weight"]
    assert torch.equal(model.F.stem[0].weight, stem)


def test_init_of_another_network_is_refused(trained_model: Path) -> None:
    source = read(trained_model)
    for other in ({"network": "vgg"}, {"width": 8}, {"width": 8, "bits": 48}):
        with pytest.raises(TrainerError, match="another network"):
            start_from(GPQ(config("modern", **other), 3), source, image_set(), Preprocess(32))
