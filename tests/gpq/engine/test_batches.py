import pytest

from gpq.engine import batches
from gpq.model.cost import BATCHES


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (1, (32, 16, 8, 4, 2, 1)),
        (batches.MOST_VALUES // 32, (32, 16, 8, 4, 2, 1)),
        (batches.MOST_VALUES // 32 + 1, (16, 8, 4, 2, 1)),
        (batches.MOST_VALUES // 2, (2, 1)),
        (batches.MOST_VALUES, (1,)),
        (8 * batches.MOST_VALUES, (1,)),
    ],
)
def test_a_network_that_needs_much_runs_small_batches(
    values: int, expected: tuple[int, ...]
) -> None:
    assert batches.sizes(values) == expected
    assert set(expected) <= set(BATCHES)


@pytest.mark.parametrize("values", [1, batches.MOST_VALUES // 4, batches.MOST_VALUES])
def test_each_image_is_in_one_part(values: int) -> None:
    sizes = batches.sizes(values)
    for count in range(100):
        parts = list(batches.parts(count, sizes))
        assert [row for part in parts for row in range(count)[part]] == list(range(count))
        assert {part.stop - part.start for part in parts} <= set(sizes)


def test_parts_are_as_large_as_possible() -> None:
    parts = batches.parts(70, (32, 16, 8, 4, 2, 1))
    assert [part.stop - part.start for part in parts] == [32, 32, 4, 2]
