from dataclasses import replace

import numpy as np

from gpq.model.codebook import pack
from tests.trainer.report.searched import embedded, random_collection
from trainer.evaluation.searches import first_hits, rankings


def test_rankings_leave_out_unknown_images_and_the_query() -> None:
    few = random_collection(12, unknown=3)
    made = embedded(few, np.arange(12) % 3)
    packed = pack(made.codebook.encode(made.database))
    found = list(rankings(made.codebook, made.queries, packed, few, "auto"))
    assert [ranking.query for ranking in found] == list(range(9))
    assert found[4].rows.tolist() == [1, 7, 0, 2, 3, 5, 6, 8]
    assert found[4].relevant.tolist() == [True] * 2 + [False] * 6
    assert found[4].scores[:3].tolist() == [1, 1, 0]


def test_known_images_may_stand_anywhere_in_the_database() -> None:
    few = random_collection(12)
    known = np.arange(12) % 2 == 1
    own = np.flatnonzero(known)[:4]
    odd = replace(few, known=known, own_rows=own, query_labels=few.database_labels[own])
    made = embedded(odd, np.arange(12) % 3)
    packed = pack(made.codebook.encode(made.database))
    found = list(rankings(made.codebook, made.queries, packed, odd, "auto"))
    assert [ranking.rows.tolist()[0] for ranking in found] == [7, 9, 11, 1]
    assert all(ranking.relevant.tolist() == [True] + [False] * 4 for ranking in found)


def test_first_hits_contain_unknown_images_but_not_the_query() -> None:
    few = random_collection(12, unknown=3)
    made = embedded(few, np.arange(12) % 3)
    (rows, scores), (apart, _) = (
        first_hits(made, collection, np.array([4]), 4, "auto")[0]
        for collection in (few, replace(few, own_rows=None))
    )
    assert rows.tolist() == [1, 7, 10, 0]
    assert scores.tolist() == [1, 1, 1, 0]
    assert apart.tolist() == [1, 4, 7, 10]
