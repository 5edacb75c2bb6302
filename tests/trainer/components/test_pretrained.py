"""Tests loading pretrained weights. The weights are random, as no model hub can be reached."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models._api import WeightsEnum

from gpq.engine import engines, torch_architectures
from harness.images import tree
from trainer.__main__ import main
from trainer.components.pretrained import MEAN, load_pretrained
from trainer.errors import TrainerError
from trainer.training import checkpoint


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_weights_in_the_cache_fill_all_layers_except_the_last(cache: Path) -> None:
    published = resnet18().state_dict()
    torch.save(published, cache / Path(ResNet18_Weights.DEFAULT.url).name)
    net = torch_architectures.build("resnet18", 36)
    last = net.project.weight.clone()
    load_pretrained(net, "resnet18")
    for name, tensor in net.body.state_dict().items():
        assert torch.equal(tensor, published[name]), name
    assert torch.equal(net.project.weight, last)


def test_weights_out_of_reach_are_an_error_that_says_where_to_put_them(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: object, **more: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    with pytest.raises(TrainerError, match=f"resnet18.*cannot be reached.*{cache}"):
        load_pretrained(torch_architectures.build("resnet18", 36), "resnet18")


@pytest.mark.parametrize(("name", "size"), [("resnet50", 32), ("alexnet", 63), ("cnn-f", 31)])
def test_a_large_network_is_trained_and_served(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses nearly the smallest size; writes no checkpoint, which takes long."""
    monkeypatch.setattr(checkpoint, "save", lambda *_: None)
    tree(tmp_path / "images", *(f"labeled/{c}/{n}.png" for c in "ab" for n in range(2)))
    out = tmp_path / "out"
    small = ["--bits", "12", "--batch-labelled", "4", "--batch-unlabelled", "4", "--steps", "1"]
    command = ["train", "--data", str(tmp_path / "images"), "--out", str(out), *small]
    assert main([*command, "--network", name, "--size", str(size)]) == 0
    model = engines.load(out)
    assert (model.rules.mean == MEAN) == (name != "cnn-f")
    assert model.rules.size == size
    assert model.encode(np.zeros((1, 3, size, size), np.uint8)).shape == (1, 2)
