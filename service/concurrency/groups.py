"""Groups items that arrive one by one."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def groups(
    items: Iterable[T], most: int, size: Callable[[T], int], limit: int
) -> Iterator[list[T]]:
    """Yields the items in order, in lists.

    A group ends with its ``most``-th item, or with the item that takes the sum of the sizes over
    ``limit``.
    """
    group: list[T] = []
    total = 0
    for item in items:
        group.append(item)
        total += size(item)
        if len(group) == most or total > limit:
            yield group
            group, total = [], 0
    if group:
        yield group
