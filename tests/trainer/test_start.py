"""Where a training starts from, if no option says so."""

from argparse import Namespace
from pathlib import Path

import pytest

from gpq.model import artifact
from harness.images import tree
from harness.models import DEFAULT
from trainer import options as trainer_options
from trainer import train as trainer_train
from trainer.__main__ import main
from trainer.config import FINE_RATE, FROZEN_STEPS, LEARNING_RATES, STEPS
from trainer.options import config_of, start_of
from trainer.parser import parser


def parsed(*words: str) -> Namespace:
    return parser().parse_args(["train", "--data", "DATA", "--out", "OUT", *words])


def test_own_images_are_learnt_on_the_features_of_the_default_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainer_train, "_report", lambda *_: None)
    names = [f"labeled/{kind}/{n}.png" for kind in "ab" for n in range(6)]
    images = tree(tmp_path / "images", *names, *(f"unlabeled/{n}.png" for n in range(8)))
    out = tmp_path / "out"
    small = ["--batch-labelled", "8", "--batch-unlabelled", "8", "--steps", "3", "--cache-gb", "0"]
    assert main(["train", "--data", str(images), "--out", str(out), *small]) == 0
    assert "this run takes about" in capsys.readouterr().err
    made, start = artifact.load(out), artifact.load(DEFAULT)
    assert made.network == {**start.network, "classes": 2}
    assert made.rules == start.rules
    training = made.about["training"]
    assert (training["init"], training["freeze"]) == (start.id, "all")
    assert training["started_from"]["data"]["licence"] == start.about["data"]["licence"]


@pytest.mark.parametrize(
    "words",
    [
        ("--network", "resnet32"),
        ("--size", "32"),
        ("--width", "8"),
        ("--freeze", "none"),
        ("--recipe", "paper"),
        ("--dataset", "cifar10"),
        ("--network", "efficientnet-lite2", "--pretrained"),
    ],
    ids=" ".join,
)
def test_an_option_that_chooses_the_network_starts_without_the_default_model(
    words: tuple[str, ...],
) -> None:
    assert start_of(parsed(*words)) is None


def test_a_run_starts_from_the_model_that_is_named() -> None:
    assert start_of(parsed("--init", "models/mine", "--size", "32")) == Path("models/mine")
    assert start_of(parsed("--bits", "24")) == trainer_options.START == DEFAULT


def test_a_frozen_network_takes_fewer_steps() -> None:
    frozen = parsed("--network", "efficientnet-lite0", "--pretrained")
    assert config_of(frozen, "", "").steps == STEPS["distilled"]
    modern = parsed("--network", "efficientnet-lite0", "--pretrained", "--recipe", "modern")
    assert config_of(modern, "", "").steps == FROZEN_STEPS
    whole = parsed("--network", "efficientnet-lite0", "--freeze", "none")
    assert config_of(whole, "", "").steps == STEPS["modern"]
    assert config_of(parsed("--size", "32"), "", "").steps == STEPS["modern"]


def test_layers_of_a_published_network_learn_more_slowly() -> None:
    def rate(*words: str) -> float:
        return config_of(parsed(*words), "", "").learning_rate

    published = ("--network", "efficientnet-lite0", "--pretrained")
    assert rate(*published, "--freeze", "4") == rate(*published, "--freeze", "none") == FINE_RATE
    assert rate(*published) == LEARNING_RATES["distilled"]
    assert rate("--size", "32") == LEARNING_RATES["modern"]
    assert rate(*published, "--freeze", "4", "--learning-rate", "0.01") == 0.01


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        ((), "distilled"),
        (("--freeze", "all"), "distilled"),
        (("--freeze", "4"), "modern"),
        (("--details", "0"), "modern"),
        (("--recipe", "modern"), "modern"),
    ],
)
def test_the_last_layer_alone_is_distilled_unless_an_option_is_for_another_recipe(
    words: tuple[str, ...], recipe: str
) -> None:
    options = parsed("--network", "efficientnet-lite0", "--pretrained", *words)
    assert config_of(options, "", "").recipe == recipe
