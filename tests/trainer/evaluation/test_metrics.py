import itertools

import numpy as np
import pytest

from trainer.evaluation import metrics


def test_average_precision_by_hand() -> None:
    relevant = np.array([True, False, True, False])
    assert metrics.average_precision(relevant) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.average_precision(np.zeros(3, dtype=bool)) == 0


def orders_of_equals(scores: np.ndarray) -> list[np.ndarray]:
    groups = [np.flatnonzero(scores == s) for s in sorted(set(scores), reverse=True)]
    return [
        np.concatenate([np.array(part) for part in parts])
        for parts in itertools.product(*(list(itertools.permutations(g)) for g in groups))
    ]


@pytest.mark.parametrize("seed", range(8))
def test_tie_aware_is_the_mean_over_all_orders_of_equals(seed: int) -> None:
    random = np.random.default_rng(seed)
    relevant = random.random(7) < 0.5
    scores = np.sort(random.integers(0, 3, 7))[::-1].astype(np.float32)
    orders = orders_of_equals(scores)
    expected = np.mean([metrics.average_precision(relevant[order]) for order in orders])
    assert metrics.tie_aware_average_precision(relevant, scores) == pytest.approx(expected)
    hits = np.mean([np.cumsum(relevant[order]) for order in orders], axis=0)
    assert metrics.expected_hits(relevant, scores) == pytest.approx(hits)


def test_without_ties_both_average_precisions_agree() -> None:
    relevant = np.random.default_rng(0).random(50) < 0.3
    scores = np.arange(50, 0, -1).astype(np.float32)
    tie_aware = metrics.tie_aware_average_precision(relevant, scores)
    assert tie_aware == pytest.approx(metrics.average_precision(relevant))
    assert metrics.tie_aware_average_precision(np.zeros(3, dtype=bool), scores[:3]) == 0


@pytest.mark.parametrize("k", [1, 2, 3, 5, 7, 20])
@pytest.mark.parametrize("seed", range(4))
def test_tie_aware_precision_is_the_mean_over_all_orders_too(seed: int, k: int) -> None:
    random = np.random.default_rng(seed)
    relevant = random.random(7) < 0.5
    scores = np.sort(random.integers(0, 3, 7))[::-1].astype(np.float32)
    expected = np.mean([relevant[order][:k].mean() for order in orders_of_equals(scores)])
    found = metrics.tie_aware_mean_at(relevant, scores, k)
    assert found == pytest.approx(expected)


def test_the_metrics_of_rankings_are_averaged_one_by_one() -> None:
    scores = np.array([3, 2, 2, 1], dtype=np.float32)
    found = [
        metrics.ranking_metrics(np.array(relevant), scores)
        for relevant in ([True, False, True, False], [False, True, False, False])
    ]
    assert found[0] == (
        metrics.average_precision(np.array([True, False, True, False])),
        metrics.tie_aware_average_precision(np.array([True, False, True, False]), scores),
        pytest.approx(0.5),
        pytest.approx(3 / 4),  # two right answers: the second rank is right in half of the orders
        pytest.approx(3 / 4),
        2,
    )
    means = metrics.mean_metrics(found)
    assert means.average_precision == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert means.tie_aware_average_precision == pytest.approx(
        ((1 + (2 / 2 + 2 / 3) / 2) / 2 + (1 / 2 + 1 / 3) / 2) / 2
    )
    assert means.precision_at_10 == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert means.precision_at_10_or_R == means.R_precision == pytest.approx((3 / 4 + 0) / 2)
    assert means.right == 1.5
    assert metrics.mean_metrics([]) == (0, 0, 0, 0, 0, 0)


def test_precision_reaches_one_for_any_number_of_right_answers() -> None:
    scores = np.arange(40, 0, -1).astype(np.float32)
    few, many = (metrics.ranking_metrics(np.arange(40) < right, scores) for right in (3, 20))
    assert (few.precision_at_10, few.precision_at_10_or_R, few.R_precision) == (0.3, 1, 1)
    assert (many.precision_at_10, many.precision_at_10_or_R, many.R_precision) == (1, 1, 1)
    late = metrics.ranking_metrics((np.arange(40) >= 5) & (np.arange(40) < 25), scores)
    assert (late.precision_at_10_or_R, late.R_precision) == (0.5, 0.75)
    none = metrics.ranking_metrics(np.zeros(40, dtype=bool), scores)
    assert none == (0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [1, 3, 40, 10_000])
def test_figures_of_groups_are_those_of_rankings(seed: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 200))
    relevant = random.random(count) < 0.2
    scores = np.sort(random.integers(0, levels, count))[::-1].astype(np.float32)
    _, first, sizes = np.unique(-scores, return_index=True, return_counts=True)
    hits = np.add.reduceat(relevant.astype(np.int64), first)
    average, precision = metrics.of_groups(sizes, hits)
    assert average == pytest.approx(metrics.tie_aware_average_precision(relevant, scores))
    if relevant.any():
        assert precision == pytest.approx(metrics.tie_aware_mean_at(relevant, scores, 10))
    else:
        assert precision == 0
