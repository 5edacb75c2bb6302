from collections.abc import Iterator

from service.concurrency.groups import groups


def test_a_group_ends_when_it_has_enough_items_or_bytes() -> None:
    sizes = [1, 1, 1, 9, 5, 5, 5, 1]
    assert list(groups(sizes, 3, int, 8)) == [[1, 1, 1], [9], [5, 5], [5, 1]]
    assert list(groups([], 3, int, 8)) == []


def test_grouping_reads_only_the_items_of_the_next_group() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(9):
            taken.append(n)
            yield n

    assert next(groups(items(), 3, int, 99)) == [0, 1, 2] == taken
