"""Every method, on images of three kinds that are easy to tell apart."""

import numpy as np
import pytest
import torch

from trainer.compare.material import Material
from trainer.compare.measure import TooSlowError, measure
from trainer.data.images import ArrayImages
from trainer.methods import METHODS, UNLABELLED
from trainer.methods.base import CodebookCoder, Lesson
from trainer.methods.deep import learning
from trainer.methods.deep.learning import Learner
from trainer.methods.shallow import products, signs

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS, E = 4, 24


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learner, "steps", 150)
    monkeypatch.setattr(learning, "RATE", 0.02)
    monkeypatch.setattr(products, "CELLS", 2)
    monkeypatch.setattr(signs, "ANCHORS", 100)


@pytest.fixture(scope="module")
def material() -> Material:
    """Kinds differ in a few directions; the others, which vary more, say nothing."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((KINDS, E)) * (np.arange(E) < 6)

    def some(count: int) -> tuple[np.ndarray, np.ndarray]:
        kind = rng.integers(0, KINDS, count)
        noise = rng.standard_normal((count, E)) * np.where(np.arange(E) < 6, 0.3, 0.9)
        labels = np.eye(KINDS, dtype=np.uint8)[kind]
        return (centres[kind] + noise).astype(np.float32), labels

    labelled, labels = some(200)
    unlabelled, _ = some(400)
    queries, query_labels = some(40)
    database, database_labels = some(400)
    names = tuple(f"kind {n}" for n in range(KINDS))
    return Material(
        "kinds", names, labelled, labels, unlabelled, queries, query_labels, database,
        database_labels, ArrayImages(torch.empty(0)),
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_what_it_is_given(name: str, material: Material) -> None:
    found, _ = measure(name, METHODS[name], material, 24, seed=0)
    chance = 1 / KINDS
    least = 0.35 if METHODS[name].uses == UNLABELLED else 0.6
    assert found.mAP > least > chance
    assert found.bits == 24 and found.n_database == 400
    again, _ = measure(name, METHODS[name], material, 24, seed=0)
    assert again.mAP == found.mAP


@pytest.mark.parametrize("name", METHODS)
def test_codes_depend_on_the_features_of_an_image_alone(name: str, material: Material) -> None:
    lesson = Lesson(material.labelled, material.labels, material.unlabelled, 12, seed=1)
    coder = METHODS[name].learn(lesson)
    codes = coder.encode(material.database)
    assert (coder.encode(material.database[5:9]) == codes[5:9]).all()
    scores = coder.scores(material.queries, codes)
    assert scores.shape == (40, 400) and scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert np.allclose(coder.scores(material.queries[3:4], codes), scores[3:4], atol=1e-4)


def test_a_method_that_learns_for_too_long_is_stopped(material: Material) -> None:
    with pytest.raises(TooSlowError):
        measure("GPQ", METHODS["GPQ"], material, 24, seed=0, limit=0.01)
    found, _ = measure("SH", METHODS["SH"], material, 24, seed=0, limit=600)
    assert found.n_query == 40


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_are_served_are_a_network_and_a_codebook(
    name: str, material: Material
) -> None:
    coder = METHODS[name].learn(material.lesson(12, 0))
    assert isinstance(coder, CodebookCoder) == METHODS[name].served
