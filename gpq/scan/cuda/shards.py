"""The scanner of several CUDA devices, which share the rows in turn."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from gpq.scan.cuda.scanner import CudaScanner
from gpq.scan.hits import Hits, best_of
from gpq.scan.mask import Mask, checked_mask
from gpq.scan.tables import checked_codes, checked_rows


class ShardedScanner:
    """A ``gpq.scan.Scanner`` over G shards: row n is row n // G of shard n % G."""

    engine = "cuda"

    def __init__(self, shards: list[CudaScanner]) -> None:
        self.shards = shards
        self.M = shards[0].M
        self._count = sum(shard.snapshot.count for shard in shards)
        self._writing = threading.Lock()

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    @property
    def bytes(self) -> int:
        """The memory that the codes take on all devices, in bytes."""
        return sum(shard.bytes for shard in self.shards)

    def rows(self) -> NDArray[np.int64]:
        with self._writing:
            parts = [self._global(n, shard.rows()) for n, shard in enumerate(self.shards)]
        return np.sort(np.concatenate(parts))

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        numbers = checked_rows(rows, self._count)
        packed = np.empty((len(numbers), (self.M + 1) // 2), dtype=np.uint8)
        for n, shard in enumerate(self.shards):
            mine = numbers % len(self.shards) == n
            packed[mine] = shard.codes(numbers[mine] // len(self.shards))
        return packed

    def add(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        codes = checked_codes(packed, self.M)
        with self._writing:
            first, G = self._count, len(self.shards)
            parts = [codes[(n - first) % G :: G] for n in range(G)]
            for shard, part in zip(self.shards, parts, strict=True):
                shard.stage(part)  # on all shards before any publishes: a device may be full
            for shard, part in zip(self.shards, parts, strict=True):
                shard.publish(len(part))
            self._count += len(codes)
        return np.arange(first, first + len(codes), dtype=np.int64)

    def remove(self, rows: NDArray[np.int64]) -> None:
        with self._writing:
            numbers = checked_rows(rows, self._count)
            for n, shard in enumerate(self.shards):
                shard.remove(numbers[numbers % len(self.shards) == n] // len(self.shards))

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | Mask | None = None,
        after: tuple[float, int] | None = None,
    ) -> Hits:
        eligible = mask if mask is None or isinstance(mask, Mask) else checked_mask(mask)
        with self._writing:
            snapshots = [shard.snapshot for shard in self.shards]

        def search(n: int) -> Hits:
            G = len(self.shards)
            part = None if eligible is None else _part(eligible, n, G)
            # The last row of this shard that is not behind the row of ``after``.
            shard_after = None if after is None else (after[0], (after[1] - n) // G)
            rows, scores = self.shards[n].search_in(snapshots[n], luts, k, part, shard_after)
            return self._global(n, rows), scores

        # Triton's interpreter, which runs on the CPU, does not support several threads.
        at_once = len(self.shards) if self.shards[0].device.type == "cuda" else 1
        with ThreadPoolExecutor(at_once) as pool:
            return best_of(list(pool.map(search, range(len(self.shards)))))

    def _global(self, n: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(rows < 0, -1, rows * len(self.shards) + n)


def _part(mask: NDArray[np.bool_] | Mask, n: int, G: int) -> NDArray[np.bool_] | Mask:
    return mask.part(n, G) if isinstance(mask, Mask) else mask[n::G]
