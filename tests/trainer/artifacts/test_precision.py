"""Tests the command ``precision``. Processors without bfloat16 compute in float32 here."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import one_hot

from gpq.engine import engines, openvino_network
from gpq.errors import ArtifactError
from gpq.model import artifact
from tests.trainer.artifacts.models import contents, edit, make_older
from trainer.__main__ import main
from trainer.artifacts import precision
from trainer.artifacts.precision import Combination, Comparison, compare, make
from trainer.data.image_sets import RetrievalSet
from trainer.errors import TrainerError
from trainer.evaluation.collection import embed, of_retrieval_set
from trainer.evaluation.evaluate import evaluate, measure

PIXELS = np.random.default_rng(3).integers(0, 256, (90, 3, 32, 32), dtype=np.uint8)
EVERY = [
    ("float32", "float32"),
    ("float32", "bfloat16"),
    ("bfloat16", "float32"),
    ("bfloat16", "bfloat16"),
]


@pytest.fixture
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_network, "supports", lambda precision: True)


def image_set() -> RetrievalSet:
    batch, labels = torch.from_numpy(PIXELS), one_hot(torch.arange(len(PIXELS)) % 3)
    return RetrievalSet(batch[:20], labels[:20], batch[20:], labels[20:], ("a", "b", "c"))


class Rounded:
    """A network whose features are rounded, much more than bfloat16 would."""

    engine, precision, device = "openvino", "bfloat16", "cpu"
    batches = (1,)

    def __init__(self, network: engines.Network) -> None:
        self.network = network

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.round(self.network.features(pixels) * 2) / 2


def test_each_side_is_computed_in_each_precision(random_model: Path) -> None:
    model, images = engines.load(random_model), image_set()
    rough = replace(model, network=Rounded(model.network))
    found = compare({"float32": model, "bfloat16": rough}, images)
    assert [(each.codes, each.queries) for each in found.combinations] == EVERY
    first, last = found.combinations[0], found.combinations[-1]
    for each, alone in ((first, model), (last, rough)):
        measured = evaluate(alone, images)[0]
        assert each.mAP_tie_aware == measured.mAP_tie_aware
        assert each.precision_at_10 == measured.precision_at_10
    collection = of_retrieval_set(images)
    embedded = replace(embed(model, collection), queries=embed(rough, collection).queries)
    mixed = measure(embedded, 12, collection, "auto")
    assert found.combinations[1].mAP_tie_aware == mixed.mAP_tie_aware
    assert (first.mAP_change, first.precision_at_10_change) == (0, 0)
    for each in found.combinations:
        assert each.mAP_change == pytest.approx(each.mAP_tie_aware - first.mAP_tie_aware)
        lost = each.precision_at_10 - first.precision_at_10
        assert each.precision_at_10_change == pytest.approx(lost)
    assert len({each.mAP_tie_aware for each in found.combinations}) == 4
    codes = [each.encode(PIXELS[20:]) for each in (model, rough)]
    changed = (codes[0] != codes[1]).any(axis=1).mean()
    assert found.changed_codes == pytest.approx(changed, abs=1e-6)
    assert 0 < changed < 1


def comparison(mAP_change: float, precision_at_10_change: float) -> Comparison:
    """Returns figures whose third combination, bfloat16 codes, has these changes."""
    changes = {EVERY[2]: (mAP_change, precision_at_10_change)}
    combinations = []
    for codes, queries in EVERY:
        mAP, precision_at_10 = changes.get((codes, queries), (0.0, 0.0))
        combinations.append(
            Combination(codes, queries, 0.8 + mAP, mAP, 0.9 + precision_at_10, precision_at_10)
        )
    return Comparison(tuple(combinations), 0.03)


@pytest.mark.parametrize("changes", [(-0.002, -0.002), (0.01, 0.01)])
def test_a_model_that_loses_little_is_written_for_bfloat16(
    changes: tuple[float, float], random_model: Path, tmp_path: Path
) -> None:
    found = comparison(*changes)
    id = make(random_model, found, "ours", tmp_path)
    before, after = artifact.load(random_model), artifact.load(tmp_path)
    assert after.id == id != before.id
    assert (before.precision, after.precision) == ("float32", "bfloat16")
    assert after.about["measured"] is None
    described = after.about["precision"]
    assert (described["from"], described["protocol"]) == ({"id": before.id}, "ours")
    assert [each["codes"] for each in described["combinations"]] == [codes for codes, _ in EVERY]
    assert described["combinations"][2]["mAP_change"] == changes[0]
    assert described["changed_codes"] == 0.03
    assert contents(tmp_path)["model.safetensors"] == contents(random_model)["model.safetensors"]
    for precision_name in ("float32", "bfloat16"):
        engines.load(tmp_path, engines.Options("openvino", precision_name))
    with pytest.raises(TrainerError, match="has a model"):
        make(random_model, found, "ours", tmp_path)
    with pytest.raises(TrainerError, match="is made for bfloat16 already"):
        make(tmp_path, found, "ours", tmp_path / "again")


def test_a_model_that_services_compute_in_float32_is_said(
    random_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*_: object) -> None:
        raise ArtifactError("golden vector 0 encodes to other codes")

    monkeypatch.setattr(engines, "load", refused)
    make(random_model, comparison(0.0, 0.0), "ours", tmp_path)
    assert "services will compute in float32" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [(-0.0021, 0.0), (0.01, -0.0021)])
def test_a_model_that_loses_more_is_not_written(
    changes: tuple[float, float], random_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainerError, match="bfloat16 codes and float32 queries") as caught:
        make(random_model, comparison(*changes), "ours", tmp_path / "out")
    assert f"mAP {changes[0]:+.4f}, precision at 10 {changes[1]:+.4f}" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("any_processor")
def test_the_command_measures_prints_and_writes(
    random_model: Path,
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["precision", "--model", str(random_model), "--data", str(sample)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["codes"], each["queries"]) for each in found["combinations"]] == EVERY
    assert found["model"] == artifact.load(random_model).id
    assert 0 <= found["changed_codes"] < 0.5
    monkeypatch.setattr(precision, "MOST_LOST", 1.0)  # of random weights it may be more than usual
    chosen = ["--out", str(tmp_path / "out"), "--examples", str(sample / "test")]
    assert main([*words, *chosen]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [tuple(line.split()[:2]) for line in lines[1:5]] == EVERY
    assert "images whose code differs between the precisions: " in lines[5]
    golden = {each["png"] for each in artifact.load(random_model).about["golden"]}
    assert golden.isdisjoint(
        each["png"] for each in artifact.load(tmp_path / "out").about["golden"]
    )
    written = artifact.load(tmp_path / "out").about["precision"]
    assert written["combinations"] == found["combinations"]
    assert written["protocol"] == "a folder of the user's"

    def unreachable(*_: object) -> None:
        raise AssertionError("nothing is measured if the figures could not be used")

    monkeypatch.setattr(precision, "compare", unreachable)
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    assert "already has a model" in capsys.readouterr().err


def test_what_cannot_be_measured_is_one_clear_line(
    trained_model: Path,
    random_model: Path,
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def error(model: Path) -> str:
        assert main(["precision", "--model", str(model), "--data", str(sample)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    older = make_older(trained_model, tmp_path / "older", 3)
    assert f"has no graph, which OpenVINO needs: run `python -m trainer upgrade {older}`" in error(
        older
    )
    monkeypatch.setattr(openvino_network, "supports", lambda precision: precision == "float32")
    assert "does not compute in bfloat16: use one with AVX512_BF16" in error(random_model)
    monkeypatch.setattr(openvino_network, "supports", lambda precision: True)
    damaged = shutil.copytree(random_model, tmp_path / "damaged")
    edit(damaged, lambda config: config["about"]["golden"][0]["code"].reverse())
    assert "the model cannot be used in float32: " in error(damaged)
    monkeypatch.setattr(openvino_network, "missing", lambda: "OpenVINO is not installed")
    assert "no precision can be measured: OpenVINO is not installed" in error(random_model)
