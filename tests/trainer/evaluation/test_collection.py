from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from gpq.engine import engines
from trainer.data.image_sets import TrainingSet, leave_one_out
from trainer.data.images import ArrayImages
from trainer.evaluation import collection as collections
from trainer.evaluation.collection import (
    Chosen,
    Joined,
    Stored,
    embed,
    embed_features,
    of_retrieval_set,
    of_training,
)
from trainer.evaluation.holdout import HeldOut


def pixels(n: int, first: int = 0) -> torch.Tensor:
    """Returns images (N,3,32,32) whose pixels are their numbers."""
    numbers = torch.arange(first, first + n, dtype=torch.uint8)
    return numbers.view(-1, 1, 1, 1).expand(-1, 3, 32, 32).contiguous()


def training_set() -> tuple[TrainingSet, HeldOut]:
    labels = one_hot(torch.arange(12) % 3)
    data = TrainingSet(pixels(9), labels[:9], pixels(20, first=100), ("a", "b", "c"))
    return data, HeldOut(pixels(3, first=50), labels[9:])


def numbers(found: torch.Tensor) -> list[int]:
    return found[:, 0, 0, 0].tolist()


def test_pictures_of_several_parts_come_in_the_order_that_is_asked_for() -> None:
    joined = Joined(
        (
            Stored(ArrayImages(pixels(3))),
            Chosen(Stored(ArrayImages(pixels(9, 50))), np.array([8, 0])),
        )
    )
    assert len(joined) == 5
    assert numbers(joined.pixels(np.array([4, 0, 3, 2, 0]))) == [50, 0, 58, 2, 0]


def test_held_out_images_are_searched_among_all_labelled_and_unlabelled_ones() -> None:
    found = of_training(*training_set())
    assert numbers(found.queries.pixels(np.arange(3))) == [50, 51, 52]
    assert found.own_rows.tolist() == [9, 10, 11]
    assert (found.labelled, found.unlabelled, found.of_unlabelled) == (11, 20, 20)
    assert found.known.tolist() == [True] * 12 + [False] * 20
    assert not found.database_labels[12:].any()
    assert numbers(found.database.pixels(np.array([0, 9, 31]))) == [0, 50, 119]
    assert np.array_equal(found.database_labels[found.own_rows], found.query_labels)


def test_without_held_out_images_those_trained_on_are_the_queries() -> None:
    data, _ = training_set()
    alone = replace(data, unlabelled=data.labelled)
    found = of_training(alone, None)
    assert (len(found.queries), found.labelled, found.unlabelled) == (9, 8, 0)


def test_queries_without_a_right_answer_are_left_out() -> None:
    data, held = training_set()
    alone = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 1]])
    found = of_training(data, replace(held, labels=alone))
    assert numbers(found.queries.pixels(np.arange(2))) == [50, 52]


def test_the_cost_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "MAX_UNLABELLED", 3)
    monkeypatch.setattr(collections, "MAX_QUERIES", 2)
    found = of_training(*training_set())
    assert numbers(found.queries.pixels(np.arange(2))) == [50, 52]
    assert (found.labelled, found.unlabelled, found.of_unlabelled) == (11, 3, 20)
    assert numbers(found.database.pixels(np.array([12, 13, 14]))) == [100, 110, 119]


def test_features_are_those_of_the_model_in_the_order_of_the_database(random_model: Path) -> None:
    model, found = engines.load(random_model), of_training(*training_set())
    made = embed(model, found)
    whole = found.database.pixels(np.arange(32)).numpy()
    assert np.allclose(made.database, model.features(whole), atol=1e-4)
    assert np.array_equal(made.queries, made.database[found.own_rows])
    apart = replace(found, own_rows=None)
    assert np.allclose(embed(model, apart).queries, made.queries, atol=1e-4)


def test_pictures_of_another_size_are_scaled(random_model: Path) -> None:
    model, found = engines.load(random_model), of_training(*training_set())
    large = replace(
        found, database=Stored(ArrayImages(found.database.pixels(np.arange(32)).tile(2, 2)))
    )
    same = embed(model, large).database  # each image has one colour
    assert np.allclose(same, embed(model, found).database, atol=1e-4)


def test_features_of_a_frozen_part_pass_only_what_follows_it(random_model: Path) -> None:
    model, (data, held) = engines.load(random_model), training_set()
    found = of_training(data, held)
    parts = [torch.randn(len(part), 2, 5) for part in (data.labelled, held.pixels, data.unlabelled)]
    D = model.codebook.D
    head = nn.Linear(5, D + 12)  # of a model with longer codes
    views = replace(data, labelled=parts[0], unlabelled=parts[2]), replace(held, pixels=parts[1])
    made = embed_features(model, lambda features: head(features[:, 0]), *views, found)
    wanted = head(torch.cat(parts)[:, 0]).detach().numpy()
    assert np.allclose(made.database, wanted[:, :D], atol=1e-5)
    assert np.array_equal(made.queries, made.database[found.own_rows])


def test_mean_colours_are_those_of_known_images() -> None:
    found = of_training(*training_set())
    assert found.query_colours[:, 0].tolist() == [50, 51, 52]
    assert found.database_colours[:, 2].tolist() == [*range(9), 50, 51, 52, *[0] * 20]


def test_all_classes_of_a_retrieval_set_are_known() -> None:
    labels = one_hot(torch.arange(6) % 2)
    found = of_retrieval_set(leave_one_out(pixels(6), labels, ("a", "b")))
    assert found.known.all() and (found.labelled, found.unlabelled) == (5, 0)
    assert found.names(1) == "b"
