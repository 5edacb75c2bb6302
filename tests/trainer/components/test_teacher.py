from pathlib import Path

import pytest
import torch
from torch.nn import functional

from harness.models import SHIPPED
from trainer.components import teacher
from trainer.components.source import read
from trainer.data.image_sets import TrainingSet, retrieval_set, training_set
from trainer.errors import TrainerError


def test_class_means_are_of_the_images_of_the_class() -> None:
    x = functional.normalize(torch.randn(6, 2, 12), dim=-1)
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]])
    means = teacher.class_means(x, labels)
    wanted = (x[0, 1] + x[2, 1] + x[4, 1] / 2) / 2.5
    assert torch.allclose(means[1, 0], wanted, atol=1e-6)
    assert (means[:, 2] == 0).all()


def test_a_teacher_predicts_the_classes_it_has_learnt(sample: Path) -> None:
    model = read(SHIPPED)
    learnt = training_set(sample, "folder", model.artifact.rules)
    searched = retrieval_set(sample, "folder", model.artifact.rules)
    assert searched.classes == learnt.classes
    of_class = searched.query_labels.argmax(dim=1)
    images = TrainingSet(learnt.labelled, learnt.labels, searched.queries, learnt.classes)
    guesses = teacher.guess(model, images, seed=0)
    assert guesses.shape == (300, 10)
    assert torch.allclose(guesses.sum(dim=1), torch.ones(300), atol=1e-5)
    assert (guesses.argmax(dim=1) == of_class).float().mean() > 0.8
    assert torch.equal(guesses, teacher.guess(model, images, seed=0))


def test_a_teacher_of_another_size_is_refused() -> None:
    pixels = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    images = TrainingSet(pixels, torch.eye(2)[[0, 1, 0, 1]], pixels.clone(), ("a", "b"))
    with pytest.raises(TrainerError, match="32 pixels, not of --size 64"):
        teacher.guess(read(SHIPPED), images, seed=0)
