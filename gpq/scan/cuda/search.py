"""Finds the exact k best hits in a snapshot.

Samples of the rows give a threshold that the k-th best score reaches; then all hits that reach the
threshold are collected and sorted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpq.scan.cuda.kernels import bound, exact
from gpq.scan.cuda.kernels.bound import bound_kernel
from gpq.scan.cuda.kernels.exact import ROWS, exact_kernel
from gpq.scan.cuda.kernels.key import NONE, scores
from gpq.scan.cuda.kernels.rescore import SLOTS, rescore_kernel
from gpq.scan.cuda.memory import Slab, reporting_full

MANY = 4  # from this many queries on, the tensor cores are faster
KEYS = 1 << 24  # keys of all queries of a batch: 128 MiB
TOGETHER = 4096  # queries of a batch, at most: its grids then have fewer than 2³¹ programs
MOST_KEYS = 1 << 18  # keys of a query, unless k needs more
SPARE = 16  # a query has room for SPARE·k keys; about a quarter of them pass a sample's threshold


@dataclass(frozen=True)
class Search:
    """A search for the k best hits of look-up tables (Q,M,16) float32.

    ``slabs``, ``count``: the rows below ``count`` are searched.
    ``luts``: look-up tables on the device of the slabs.
    ``after``: a hit must have a key below this one.
    ``paging``: whether the caller set ``after``.
    """

    slabs: tuple[Slab, ...]
    count: int
    luts: Tensor
    k: int
    after: int
    paging: bool

    @property
    def device(self) -> torch.device:
        return self.luts.device

    def best(self) -> Tensor:
        """Returns keys (Q,k) int64 in descending order; missing hits are NONE."""
        room = -(-SPARE * self.k // ROWS) * ROWS
        capacity = max(room, min(MOST_KEYS, KEYS // len(self.luts) // ROWS * ROWS))
        together = min(max(1, KEYS // capacity), TOGETHER)
        with reporting_full(f"the hits of {len(self.luts)} queries", 8 * KEYS, self.device):
            parts = [
                QueryBatch(self, self.luts[q : q + together].contiguous(), capacity).best()
                for q in range(0, len(self.luts), together)
            ]
        return torch.cat(parts)


class QueryBatch:
    """Queries of one search that scan the codes together.

    ``capacity``: number of keys for which each query has room, at least SPARE·k.
    """

    def __init__(self, search: Search, luts: Tensor, capacity: int) -> None:
        self.search, self.luts, self.capacity = search, luts, capacity
        self.Q, self.M = luts.shape[:2]

    def best(self) -> Tensor:
        """Returns keys (Q,k) int64 in descending order; missing hits are NONE."""
        count, k = self.search.count, self.search.k
        thresholds = self._keys(1)[:, 0]
        many = self.Q >= MANY and not self.search.paging
        for rows in samples(count, self.capacity, self.capacity // (4 * k)):
            # If a sample has more keys than fit, the k-th of any that fit is a threshold, too.
            keys, _ = self._collect(thresholds, 0, count, -(-count // rows), many)
            thresholds = torch.maximum(thresholds, keys.topk(k).values[:, -1])
        keys, counts = self._collect(thresholds, 0, count, 1, many)
        best = keys.topk(k).values
        full = counts > self.capacity
        if full.any():
            best[full] = self._subset(full)._best_in_order(thresholds[full])
        return best

    def _subset(self, chosen: Tensor) -> "QueryBatch":
        return QueryBatch(self.search, self.luts[chosen].contiguous(), self.capacity)

    def _best_in_order(self, thresholds: Tensor) -> Tensor:
        """Searches the rows in ascending order, as many at a time as their hits have room for.

        Of equal scores the first row is the best, so that k found hits exclude all later rows with
        the same scores.
        """
        count, k = self.search.count, self.search.k
        best = self._keys(k)
        start, rows = 0, self.capacity
        while start < count:
            reached = torch.maximum(thresholds, best[:, -1])
            keys, counts = self._collect(reached, start, min(start + rows, count), 1, many=False)
            if rows > self.capacity and (counts > self.capacity).any():
                rows = max(self.capacity, rows // 4 // ROWS * ROWS)
                continue
            best = torch.cat([best, keys], dim=1).topk(k).values
            start += rows
            rows *= 4
        return best

    def _collect(
        self, thresholds: Tensor, first: int, last: int, step: int, many: bool
    ) -> tuple[Tensor, Tensor]:
        """Collects the keys of at least thresholds (Q,) among the rows from first to last.

        Only every ``step``-th block of rows is searched. Returns keys (Q,capacity) and the number
        of keys (Q,), which is above the capacity if keys are missing. With ``many``, the number may
        be too high, because it counts all survivors of the bound.
        """
        keys = self._keys(self.capacity)
        if many:
            return keys, self._collect_many(keys, thresholds, first, last, step)
        tile = min(exact.MOST_QUERIES, _power_of_two(self.Q))
        tiles = -(-self.Q // tile)
        counts = torch.zeros(tiles * tile, dtype=torch.int32, device=keys.device)
        for slab, start, end in self._ranges(first, last):
            blocks = -(-(end - start) // (ROWS * step))
            exact_kernel[(blocks * tiles,)](
                slab.planes.view(torch.int32), slab.capacity // 4, slab.live,
                self.luts, thresholds, scores(thresholds), self.search.after,
                keys, counts, self.capacity, slab.first_row, start, end, step, self.Q, tiles,
                M=self.M, ROWS=ROWS, QUERIES=tile, num_warps=exact.WARPS * tile,
            )  # fmt: skip
        return keys, counts[: self.Q]

    def _collect_many(
        self, keys: Tensor, thresholds: Tensor, first: int, last: int, step: int
    ) -> Tensor:
        tile = min(bound.MOST_QUERIES, max(bound.LEAST_QUERIES, _power_of_two(self.Q)))
        tiles = -(-self.Q // tile)
        tables, limits = bound.tables(self.luts, scores(thresholds), tiles * tile)
        one_hots = bound.one_hots(keys.device)
        counts = torch.zeros(tiles * tile, dtype=torch.int32, device=keys.device)
        survivors = torch.empty((self.Q, self.capacity), dtype=torch.int32, device=keys.device)
        for slab, start, end in self._ranges(first, last):
            blocks = -(-(end - start) // (bound.ROWS * step))
            bound_kernel[(blocks * tiles,)](
                slab.planes, slab.capacity, slab.live, one_hots, tables, limits, survivors, counts,
                self.capacity, slab.first_row, start, end, step, tiles,
                PLANES=slab.planes.shape[0], ROWS=bound.ROWS, QUERIES=tile,
                num_warps=bound.WARPS,
            )  # fmt: skip
        for slab, _, end in self._ranges(first, last):
            rescore_kernel[(-(-self.capacity // SLOTS), self.Q)](
                slab.planes, slab.capacity, self.luts, thresholds, survivors, counts, keys,
                self.capacity, slab.first_row, end, M=self.M, SLOTS=SLOTS,
            )  # fmt: skip
        return counts[: self.Q]

    def _ranges(self, first: int, last: int) -> list[tuple[Slab, int, int]]:
        """Returns, for each slab, the columns of the rows from first to last."""
        found = []
        for slab in self.search.slabs:
            start = max(first - slab.first_row, 0)
            end = min(last - slab.first_row, slab.capacity)
            if start < end:
                found.append((slab, start, end))
        return found

    def _keys(self, width: int) -> Tensor:
        return torch.full((self.Q, width), NONE, device=self.luts.device)


def samples(count: int, capacity: int, growth: int) -> list[int]:
    """Returns the number of rows of each sample to search before all ``count`` rows.

    The first sample has ``capacity`` rows, so that all its keys fit. Each following sample, and at
    last all rows, has at most ``growth`` times as many rows. With the threshold of the sample
    before, about a quarter of the capacity is then filled.
    """
    sizes: list[int] = []
    rows = count
    while rows > capacity:
        rows = max(capacity, -(-rows // growth))
        sizes.insert(0, rows)
    return sizes


def _power_of_two(n: int) -> int:
    """Returns the smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()
