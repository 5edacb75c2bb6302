"""What comes one by one, in groups."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def groups(
    items: Iterable[T], most: int, size: Callable[[T], int], limit: int
) -> Iterator[list[T]]:
    """In order, as they come: a group ends with its ``most``-th item, or with the one that takes
    the sum of its sizes over ``limit``."""
    group: list[T] = []
    held = 0
    for item in items:
        group.append(item)
        held += size(item)
        if len(group) == most or held > limit:
            yield group
            group, held = [], 0
    if group:
        yield group
