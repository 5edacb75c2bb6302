import itertools

import numpy as np
import pytest

from trainer import metrics


def test_average_precision_by_hand() -> None:
    relevant = np.array([True, False, True, False])
    assert metrics.average_precision(relevant) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.average_precision(np.zeros(3, dtype=bool)) == 0


@pytest.mark.parametrize("seed", range(8))
def test_tie_aware_is_the_mean_over_all_orders_of_equals(seed: int) -> None:
    random = np.random.default_rng(seed)
    relevant = random.random(7) < 0.5
    scores = np.sort(random.integers(0, 3, 7))[::-1].astype(np.float32)
    groups = [np.flatnonzero(scores == s) for s in sorted(set(scores), reverse=True)]
    orders = [
        np.concatenate([np.array(p) for p in parts])
        for parts in itertools.product(*(list(itertools.permutations(g)) for g in groups))
    ]
    expected = np.mean([metrics.average_precision(relevant[order]) for order in orders])
    assert metrics.tie_aware_average_precision(relevant, scores) == pytest.approx(expected)


def test_without_ties_both_agree() -> None:
    relevant = np.random.default_rng(0).random(50) < 0.3
    scores = np.arange(50, 0, -1).astype(np.float32)
    tie_aware = metrics.tie_aware_average_precision(relevant, scores)
    assert tie_aware == pytest.approx(metrics.average_precision(relevant))
    assert metrics.tie_aware_average_precision(np.zeros(3, dtype=bool), scores[:3]) == 0


def test_precision_at_k() -> None:
    assert metrics.precision_at(np.array([True, True, False, False]), 3) == pytest.approx(2 / 3)
