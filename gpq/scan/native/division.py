"""Divides a long search among threads, by its queries and, if these are few, by the codes."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from gpq.scan.hits import Hits, best_of


@dataclass(frozen=True)
class Share:
    """Some queries of a search and the part of the codes, of ``parts``, to search for them."""

    queries: slice
    part: int
    parts: int


def shares(Q: int, k: int, rows: int, threads: int) -> list[list[Share]]:
    """Divides a search of Q queries for k hits among ``rows`` rows into about ``threads`` shares.

    Returns a list for each group of queries, with one share for each part of the codes.
    """
    groups = max(1, min(threads, Q))
    parts = max(1, threads // groups)
    if parts * k > rows:  # most hits of the parts would be discarded
        parts = 1
    edges = [Q * group // groups for group in range(groups + 1)]
    return [
        [Share(slice(first, last), part, parts) for part in range(parts)]
        for first, last in itertools.pairwise(edges)
    ]


def search(work: Callable[[Share], Hits], groups: list[list[Share]]) -> Hits:
    """Calls ``work`` for each share in a thread of its own, and merges the hits."""
    flat = list(itertools.chain.from_iterable(groups))
    if len(flat) == 1:
        return work(flat[0])
    with ThreadPoolExecutor(len(flat)) as pool:
        found = pool.map(work, flat)
        hits = [best_of([next(found) for _ in group]) for group in groups]
    return np.concatenate([r for r, _ in hits]), np.concatenate([s for _, s in hits])
