"""Tests that a network is its frozen part followed by the rest."""

import pytest
import torch
from torch import nn

from gpq.engine import torch_architectures
from tests.trainer.artifacts.test_graph import network
from trainer.artifacts import graph
from trainer.frozen.split import first_part, joined, rest, stages_of

SIZE = 64


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        *(("efficientnet-lite0", stages) for stages in (None, 1, 4, 7)),
        *(("resnet18", stages) for stages in (None, 1, 4)),
        ("resnet50", 2),
        *((name, None) for name in ("vgg", "resnet32", "alexnet", "cnn-f")),
    ],
)
def test_the_frozen_part_and_the_rest_are_the_network(name: str, stages: int | None) -> None:
    size = 100 if name in ("alexnet", "cnn-f") else SIZE
    whole, images = network(name), torch.randn(2, 3, size, size)
    part, left = first_part(whole, stages), rest(whole, stages, size).eval()
    with torch.inference_mode():
        features = part(images)
        assert features.ndim == 2
        expected = whole(images)
        assert torch.allclose(left(features), expected, atol=1e-5 * float(expected.abs().max()))
    state = whole.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in left.state_dict().items())
    assert {"project.weight", "project.bias"} <= set(left.state_dict()) < set(state)
    assert not any(parameter.requires_grad for parameter in part.parameters())


def test_a_network_is_joined_with_the_rest_that_learnt() -> None:
    whole = network("efficientnet-lite0")
    left = rest(whole, 6, SIZE)
    with torch.no_grad():
        for parameter in left.parameters():
            parameter.add_(1)
    made = joined(whole, left.get_submodule("project"), left.state_dict())
    before, after = whole.state_dict(), made.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name, _ in left.named_parameters()}
    assert not any(name.startswith(("stem", "stages.5")) for name in changed)
    assert any(name.startswith("stages.6") for name in changed)


def test_which_networks_have_stages() -> None:
    stages = {name: stages_of(name) for name in torch_architectures.NETWORKS}
    assert {name: count for name, count in stages.items() if count} == {
        "efficientnet-lite0": 7, "efficientnet-lite1": 7, "efficientnet-lite2": 7,
        "resnet18": 4, "resnet50": 4,
    }  # fmt: skip


def test_a_rest_is_not_the_network_itself() -> None:
    whole = nn.Module()
    whole.project = nn.Linear(4, 2)
    left = rest(whole, None, SIZE)
    left.project.weight.data.zero_()
    assert whole.project.weight.abs().sum() > 0
    assert graph.tensors_of(left).keys() == {"F.project.weight", "F.project.bias"}
