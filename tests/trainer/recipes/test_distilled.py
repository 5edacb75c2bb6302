"""Trainings of the last layer alone, by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.errors import ArtifactError
from gpq.model import artifact
from gpq.pixels.preprocess import Preprocess
from harness.images import tree
from tests.trainer.initial.test_similarity import config, features
from tests.trainer.recipes.test_recipe import require_nothing_from_the_host
from trainer import train as train_module
from trainer.__main__ import main
from trainer.artifacts.cut import cut
from trainer.components.head import Head
from trainer.components.model import GPQ
from trainer.device import autocast
from trainer.initial import similarity
from trainer.recipes import RECIPES

WORDS = [
    "--network", "resnet", "--width", "4", "--freeze", "all", "--views", "3", "--bits", "16",
    "--batch-labelled", "8", "--batch-unlabelled", "8", "--steps", "6",
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [f"labeled/{c}/{n}.png" for c in "abc" for n in range(12)]
    others = [f"unlabeled/{n}.png" for n in range(10)]
    return tree(tmp_path_factory.mktemp("photos"), *names, *others)


def train(photos: Path, out: Path, *more: str) -> int:
    return main(["train", "--data", str(photos), "--out", str(out), *WORDS, *more])


def test_the_model_computes_the_probabilities_of_classes_in_every_engine(
    photos: Path, trained_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert train(photos, out, "--init", str(trained_model)) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["compute"]["network"] == {"name": "resnet", "width": 4, "classes": 3}
    assert config["about"]["training"]["recipe"] == "distilled"
    tensors = dict(artifact.load(out).weights.network())
    assert tensors["project.classes.weight"].shape == (3, 32)
    assert tensors["project.weight"].shape == (48, 35)
    before = dict(artifact.load(trained_model).weights.network())
    changed = {n for n in before if not np.array_equal(before[n], tensors[n])}
    assert changed == {"project.weight", "project.bias"}
    pixels = np.random.default_rng(1).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    models = [engines.load(out, Options(engine)) for engine in ("openvino", "torch", "onnxruntime")]
    features = [model.features(pixels) for model in models]
    assert np.allclose(features[0], features[1], atol=1e-3)
    assert np.allclose(features[0], features[2], atol=1e-3)
    cut(out, 8, tmp_path / "short")
    shorter = engines.load(tmp_path / "short").encode(pixels)
    assert np.array_equal(shorter, models[0].encode(pixels)[:, :1])


def test_a_run_is_reproducible_and_starts_others(
    photos: Path, trained_model: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        assert train(photos, out, "--init", str(trained_model)) == 0
    assert engines.load(first).id == engines.load(second).id
    assert train(photos, tmp_path / "third", "--init", str(first)) == 0
    assert train(photos, tmp_path / "modern", "--init", str(first), "--recipe", "modern") == 0
    network = json.loads((tmp_path / "modern" / "config.json").read_text())["compute"]["network"]
    assert network == {"name": "resnet", "width": 4}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--freeze", "none", "--recipe", "distilled"], "give --freeze all"),
        (["--recipe", "distilled", "--details", "2"], "--details is only for --recipe modern"),
        (["--recipe", "distilled", "--lambda1", "0"], "--lambda1 is only for --recipe modern"),
        (["--recipe", "distilled", "--teacher", "INIT"], "--teacher is only for --recipe modern"),
    ],
)
def test_what_it_cannot_do_is_one_clear_line(
    words: list[str], message: str, photos: Path, trained_model: Path, tmp_path: Path, capsys
) -> None:
    given = [str(trained_model) if word == "INIT" else word for word in words]
    plain = [word for word in WORDS if word not in ("--views", "3")]
    command = ["train", "--data", str(photos), "--out", str(tmp_path / "out"), *plain]
    assert main([*command, "--init", str(trained_model), *given]) == 1
    printed = capsys.readouterr().err
    assert message in printed and len(printed.splitlines()) == 1


@pytest.mark.parametrize("classes", [-1, 2.5, "many", 10**12])
def test_a_wrong_number_of_classes_is_refused(
    photos: Path, trained_model: Path, tmp_path: Path, classes: object
) -> None:
    out = tmp_path / "out"
    assert train(photos, out, "--init", str(trained_model), "--steps", "1") == 0
    config = json.loads((out / "config.json").read_text())
    config["compute"]["network"]["classes"] = classes
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError):
        engines.load(out, Options("torch"))


def test_a_step_reaches_the_projection_and_the_codewords_alone(
    photos: Path, trained_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: set[str] = set()
    stepped = train_module.loop.TrainingStep._compute

    def watched(step, batch):
        found = stepped(step, batch)
        named = step.recipe.model.named_parameters()
        reached.update(n for n, p in named if p.grad is not None and p.grad.abs().sum() > 0)
        return found

    monkeypatch.setattr(train_module.loop.TrainingStep, "_compute", watched)
    assert train(photos, tmp_path / "out", "--init", str(trained_model)) == 0
    assert reached == {"F.project.weight", "F.project.bias", "Z", "means"}


def test_a_step_takes_nothing_from_the_host() -> None:
    data, _ = features(classes=6, each=12)
    wanted = config(bits=16)
    model = GPQ(wanted, 6, Head(64, 48, 6)).train()
    similarity.start(model, data, seed=0, class_weight=None)
    made = RECIPES["distilled"](model, data, Preprocess(32), wanted, autocast(torch.device("cpu")))
    made.optimiser()
    require_nothing_from_the_host(made)


def test_training_keeps_more_of_the_similarities(
    photos: Path, trained_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["--steps", "100", "--batch-labelled", "32", "--batch-unlabelled", "16"]
    assert train(photos, out, "--init", str(trained_model), *words) == 0
    lines = (out / "log.jsonl").read_text().splitlines()
    kept = [json.loads(line)["kept"] for line in lines if "kept" in line]
    assert len(kept) == 4 and 0 < kept[0] < kept[-1] <= 1
    assert np.linalg.norm(engines.load(out).codebook.means, axis=2).max() == pytest.approx(1)
