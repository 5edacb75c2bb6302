"""Divides batches into parts of few sizes."""

from collections.abc import Iterator

from gpq.model.cost import BATCHES

MOST_VALUES = 2**24  # of activations in a batch, 64 MiB: what a CPU keeps from batch to batch


def sizes(values: int) -> tuple[int, ...]:
    """Returns the sizes of batches to run, descending: some of those that graphs are checked for.

    An engine prepares for each size once, when it loads a network. ``values``: numbers that the
    network needs at the same time for one image.
    """
    return tuple(n for n in reversed(BATCHES) if n == 1 or n * values <= MOST_VALUES)


def parts(count: int, sizes: tuple[int, ...]) -> Iterator[slice]:
    """Yields slices of a batch of ``count`` images, each of one of the ``sizes``."""
    first = 0
    for size in sizes:
        while count - first >= size:
            yield slice(first, first + size)
            first += size
