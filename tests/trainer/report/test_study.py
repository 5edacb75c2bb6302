from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from tests.trainer.report.searched import CLASSES, embedded, random_collection
from trainer.data.image_sets import RetrievalSet
from trainer.evaluation.collection import of_retrieval_set
from trainer.evaluation.ranking import Ranking
from trainer.report.study import (
    MAP_KNOWN,
    RECALLS,
    UNKNOWN,
    Study,
    _colour_examples,
    _feature_map,
    _per_class,
    _query_result,
    precision_of_recall,
    study,
)


def test_a_study_of_random_weights_finds_what_chance_finds(found: Study) -> None:
    assert found.chance == pytest.approx(29 / 89)
    assert found.whole.mAP_tie_aware == pytest.approx(found.chance, abs=0.1)
    assert [result.queries for result in found.per_class] == [30] * 3
    assert [r.mAP for r in found.per_class] == sorted(r.mAP for r in found.per_class)
    assert [len(line) for line in found.precisions] == [7]
    assert set(found.right) == {29} and found.ten_exist
    assert [result.images for result in found.per_class] == [30] * 3
    assert found.attainable[3:] == pytest.approx([1, 1, 29 / 50, 29 / 89])
    assert found.precisions[0][3] == pytest.approx(found.whole.precision_at_10, abs=1e-4)
    assert found.usage.shape == (12, 16)
    assert found.usage.sum(axis=1) == pytest.approx(np.ones(12))
    assert (found.tie_sizes >= 1).all() and found.tie_sizes.max() == found.whole.largest_tie
    assert [example.name for example in found.examples] == list(CLASSES)
    for example in found.examples:
        assert len(example.hits) == 10
        scores = [hit.score for hit in example.hits]
        assert scores == sorted(scores, reverse=True)


def test_precision_of_recall_by_hand() -> None:
    # hits at ranks 1 and 4: precision 1 up to recall ½, ½ above it
    scores = np.array([4, 3, 2, 1], dtype=np.float32)
    found = precision_of_recall(np.array([True, False, False, True]), scores)
    assert found.tolist() == [1.0 if recall <= 0.5 else 0.5 for recall in RECALLS]
    assert not precision_of_recall(np.zeros(3, dtype=bool), scores[:3]).any()


def test_precision_of_recall_is_the_same_in_any_order_of_equal_scores() -> None:
    scores = np.array([2, 2, 2, 2, 1], dtype=np.float32)
    orders = ([True, True, False, False, True], [False, False, True, True, True])
    first, second = (precision_of_recall(np.array(order), scores) for order in orders)
    assert first.tolist() == second.tolist()
    assert first[0] == pytest.approx(0.6)  # the best precision is at the end: 3 of 5


def test_the_queries_shown_of_a_class_differ_in_colour() -> None:
    pixels = torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8) * 6
    labels = one_hot(torch.arange(40) % 4 // 2 * (torch.arange(40) % 2), 2)
    own = RetrievalSet(pixels, labels, pixels, labels, ("a", "b"), own_rows=torch.arange(40))
    rows, right = np.arange(40), np.ones(40, dtype=bool)
    found = [_query_result(Ranking(q, rows, -rows.astype(np.float32), right)) for q in range(40)]
    shown = _colour_examples(found, of_retrieval_set(own))
    assert [example.name for example in shown] == ["a"] * 5
    values = sorted(int(example.pixels[0, 0, 0]) for example in shown)
    assert values[0] < 12 and values[-1] > 216 and min(np.diff(values)) > 30
    assert all(len(example.hits) == 10 for example in shown)


def test_hits_after_all_of_a_small_class_do_not_count_as_confusion() -> None:
    right = np.arange(12) < 2
    ranking = Ranking(0, np.arange(12), -np.arange(12, dtype=np.float32), right)
    labels = one_hot(torch.tensor([0] * 2 + [1] * 10))
    pixels = torch.zeros(12, 3, 8, 8, dtype=torch.uint8)
    own = RetrievalSet(pixels[:1], labels[:1], pixels, labels, ("few", "many"))
    (result,) = _per_class([_query_result(ranking)], of_retrieval_set(own))
    assert result.confused is None
    found_late = replace(ranking, relevant=np.roll(right, 1))
    (result,) = _per_class(
        [_query_result(found_late)],
        of_retrieval_set(replace(own, database_labels=labels.roll(1, 0))),
    )
    assert result.confused == ("many", 0.5)


def test_unknown_images_are_among_the_hits_but_not_in_the_figures() -> None:
    """Every image is alike the others of its class, and so are those of unknown class."""
    few = random_collection(60, unknown=45)
    found = study(embedded(few, np.arange(60) % 3), {}, few)
    assert found.whole.mAP_tie_aware == found.whole.precision_at_10_or_R == 1
    assert (found.whole.n_database, set(found.right), found.ten_exist) == (14, {4}, False)
    assert found.whole.largest_tie == 20  # of known and unknown class
    rights = {hit.right for example in found.examples for hit in example.hits}
    assert rights == {True, None}
    assert [result.images for result in found.per_class] == [5] * 3


def test_the_map_shows_all_known_images_and_some_unknown_ones() -> None:
    many = random_collection(1600, unknown=1500)
    found = embedded(many, np.arange(1600) % 3)
    positions, of_class = _feature_map(found, many)
    assert len(positions) == 1500
    assert (of_class != UNKNOWN).sum() == 100
    assert MAP_KNOWN < 1500
