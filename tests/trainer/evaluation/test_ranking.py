import numpy as np

from trainer.evaluation.metrics import ranking_metrics
from trainer.evaluation.ranking import ranked


def test_rows_are_ranked_by_score_and_equal_ones_stay_in_order() -> None:
    scores = np.array([1, 3, 2, 3], dtype=np.float32)
    relevant = np.array([True, False, False, True])
    found = ranked(7, scores, relevant)
    assert found.query == 7
    assert found.rows.tolist() == [1, 3, 2, 0]
    assert found.scores.tolist() == [3, 3, 2, 1]
    assert found.relevant.tolist() == [False, True, False, True]
    assert found.metrics == ranking_metrics(found.relevant, found.scores)


def test_the_row_of_the_query_is_left_out() -> None:
    scores = np.array([1, 3, 2, 3], dtype=np.float32)
    found = ranked(0, scores, scores > 2, own_row=1)
    assert found.rows.tolist() == [3, 2, 0]
    assert found.relevant.tolist() == [True, False, False]
