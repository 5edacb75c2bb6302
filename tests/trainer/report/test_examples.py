import numpy as np

from tests.trainer.report.searched import embedded, random_collection
from trainer.report.examples import searched, spread_in_colour


def test_hits_are_right_wrong_or_unknown_and_never_the_query() -> None:
    few = random_collection(30, unknown=12)
    found = searched(embedded(few, np.arange(30) % 2), few, np.array([0, 4]), "auto")
    assert [example.name for example in found] == ["ant", "_bee $5_$10"]
    for example, query in zip(found, (0, 4), strict=True):
        own = few.queries.pixels(np.array([query]))[0].numpy()
        assert np.array_equal(example.pixels, own)
        assert len(example.hits) == 10
        assert not any(np.array_equal(hit.pixels, own) for hit in example.hits)
        assert {hit.right for hit in example.hits} == {True, False, None}
        assert example.in_words.startswith(f"query {example.name}; of 10 hits ")
        assert "of unknown class" in example.in_words


def test_colours_that_are_chosen_are_far_apart() -> None:
    colours = np.stack([np.arange(30), np.zeros(30), np.zeros(30)], axis=1)
    chosen = spread_in_colour(colours, 4)
    assert {0, 29} < set(chosen)
    assert min(np.diff(sorted(chosen))) > 6
    assert len(spread_in_colour(colours[:2], 4)) == 2
