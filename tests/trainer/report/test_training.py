from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import one_hot

from gpq.engine import engines
from tests.trainer.report.searched import image_set
from trainer.data.image_sets import TrainingSet
from trainer.evaluation import collection as collections
from trainer.evaluation.collection import of_training
from trainer.evaluation.holdout import HeldOut
from trainer.report.training import describe, report_training


def trained(unlabelled: int = 20) -> tuple[TrainingSet, HeldOut]:
    images = image_set(60 + unlabelled)
    pixels, labels = images.database, images.database_labels
    data = TrainingSet(pixels[:50], labels[:50], pixels[60:], images.classes)
    return data, HeldOut(pixels[50:60], labels[50:60])


def test_a_report_at_the_end_compares_with_the_model_before(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, held = trained()
    model = engines.load(random_model)
    report_training(model, data, held, tmp_path, before=model)
    page = (tmp_path / "report.html").read_text()
    assert "10 queries, each searched among 59 labelled images and 20 unlabelled ones" in page
    assert "that training did not see" in page
    assert "Training did not measurably help" in page
    assert f"wrote {tmp_path / 'report.html'}" in capsys.readouterr().err


def test_nothing_to_search_is_said(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = trained()
    alone = replace(data, labelled=data.labelled[:2], labels=one_hot(torch.arange(2), 3))
    report_training(engines.load(random_model), alone, None, tmp_path)
    assert "no report is written: nothing to search for" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_sample_of_the_unlabelled_images_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    data, held = trained()
    assert describe(of_training(data, held), held) == "Labelled images that training did not see"
    assert "that were trained on" in describe(of_training(data, None), None)
    monkeypatch.setattr(collections, "MAX_UNLABELLED", 5)
    assert "of 20 unlabelled images, 5 evenly" in describe(of_training(data, held), held)
