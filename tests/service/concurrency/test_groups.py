from collections.abc import Iterator

from service.concurrency.groups import groups


def test_a_group_ends_where_it_is_full_or_large() -> None:
    sizes = [1, 1, 1, 9, 5, 5, 5, 1]
    assert list(groups(sizes, 3, int, 8)) == [[1, 1, 1], [9], [5, 5], [5, 1]]
    assert list(groups([], 3, int, 8)) == []


def test_no_more_is_taken_than_is_asked_for() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(9):
            taken.append(n)
            yield n

    assert next(groups(items(), 3, int, 99)) == [0, 1, 2] == taken
