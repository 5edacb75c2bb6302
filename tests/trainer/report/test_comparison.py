import numpy as np
import pytest

from tests.trainer.report.searched import embedded, random_collection
from trainer.report.comparison import _change, _chosen, compare
from trainer.report.study import study


def test_queries_are_compared_one_by_one_with_each_models_own_codebook() -> None:
    few = random_collection(30)
    right = np.arange(30) % 3
    wrong = np.where(right == 2, 3 + np.arange(30) // 3, right)  # the third class is scattered
    after = embedded(few, right)
    found = compare(embedded(few, wrong), after, study(after, {}, few).metrics, few)
    assert (found.better_queries, found.worse_queries, found.bits) == (10, 0, 4)
    assert found.mAP.after == 1 and found.mAP.before < 0.9 and found.mAP.low > 0
    assert [change.name for change in found.changes] == [
        "mAP",
        "precision at 10 or R",
        "R-precision",
    ]
    assert {pair.after.name for pair in found.improved} == {"<cow>"}
    assert len(found.typical) == 3 and not found.worse
    for pair in found.improved:
        assert np.array_equal(pair.before.pixels, pair.after.pixels)
        assert pair.of_before < pair.of_after == 1
        assert sum(hit.right is True for hit in pair.after.hits) == 9
        assert sum(hit.right is True for hit in pair.before.hits) < 9


def test_queries_shown_are_the_most_improved_typical_and_worst_ones() -> None:
    changes = np.array([0.5, 0.0, -0.4, 0.1, 0.3, 0.2, 0.0, -0.1, 0.0, 0.0])
    improved, typical, worse = _chosen(changes)
    assert improved.tolist() == [0, 4, 5]
    assert worse.tolist() == [2, 7]
    assert changes[typical].tolist() == [0, 0, 0]
    assert [len(rows) for rows in _chosen(np.zeros(2))] == [0, 2, 0]


def test_the_interval_of_a_change_contains_it_and_narrows_with_more_queries() -> None:
    random = np.random.default_rng(1)
    before = random.random(1000)
    after = before + random.normal(0.05, 0.2, 1000)
    few, many = (_change("mAP", before[:n], after[:n]) for n in (50, 1000))
    for change in (few, many):
        assert change.low < change.change < change.high
    error = 2 * 1.96 * 0.2 / np.sqrt(1000)  # of a mean of independent changes
    assert many.high - many.low == pytest.approx(error, rel=0.15)
    assert few.high - few.low > 3 * (many.high - many.low)
