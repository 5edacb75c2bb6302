"""The scanner of one CUDA device. A change makes a new snapshot; a search uses the current one."""

import threading
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gpq.errors import DeviceFull, ScanError
from gpq.scan.cuda import memory
from gpq.scan.cuda.kernels import key
from gpq.scan.cuda.memory import Slab
from gpq.scan.cuda.search import Search
from gpq.scan.hits import Hits
from gpq.scan.mask import Mask, checked_mask
from gpq.scan.mask_cache import MaskCache
from gpq.scan.tables import checked_codes, checked_rows, checked_shape, require_finite

LAST_KEY = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class CudaSnapshot:
    """The codes that one search sees, even if the scanner changes meanwhile."""

    slabs: tuple[Slab, ...]
    count: int  # rows ever added
    removed: int


class CudaScanner:
    """A ``gpq.scan.Scanner`` of up to 2³¹-1 rows on one device.

    ``device``: a CUDA device, or the CPU in Triton's interpreter, for tests.
    Raises DeviceFull if the device has too little memory for the codes.
    """

    engine = "cuda"

    def __init__(self, packed: NDArray[np.uint8], M: int, device: torch.device | str) -> None:
        if M < 1:
            raise ScanError(f"M is {M}; a code has at least one sub-code")
        self.M, self.device = M, torch.device(device)
        self._writing = threading.Lock()
        self._masks: MaskCache[Slab] = MaskCache()
        self.snapshot = CudaSnapshot((), 0, 0)
        self.add(packed)

    def __len__(self) -> int:
        snapshot = self.snapshot
        return snapshot.count - snapshot.removed

    @property
    def bytes(self) -> int:
        """The device memory that the codes take, in bytes."""
        return sum(slab.bytes for slab in self.snapshot.slabs)

    def rows(self) -> NDArray[np.int64]:
        snapshot = self.snapshot
        return memory.live_rows(snapshot.slabs, snapshot.count)

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        snapshot = self.snapshot
        return memory.gather(snapshot.slabs, checked_rows(rows, snapshot.count))

    def add(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        with self._writing:
            self.stage(packed)
            return self.publish(len(packed))

    def stage(self, packed: NDArray[np.uint8]) -> None:
        """Writes codes behind all rows, where no search sees them before ``publish``.

        Only one thread may call it at a time. Raises DeviceFull.
        """
        codes = checked_codes(packed, self.M)
        self._reserve(len(codes))
        first = self.snapshot.count
        for slab in self.snapshot.slabs:
            start, stop = max(first, slab.first_row), min(first + len(codes), slab.last_row)
            if start < stop:
                memory.write(slab, start, codes[start - first : stop - first])

    def publish(self, rows: int) -> NDArray[np.int64]:
        """Lets searches see the last ``rows`` staged codes, and returns their rows."""
        first = self.snapshot.count
        self.snapshot = replace(self.snapshot, count=first + rows)
        return np.arange(first, first + rows, dtype=np.int64)

    def _reserve(self, rows: int) -> None:
        last, slabs = self.snapshot.count + rows, self.snapshot.slabs
        if last > key.MOST_ROWS:
            raise DeviceFull(f"{last} rows are too many; a device holds at most {key.MOST_ROWS}")
        end = slabs[-1].last_row if slabs else 0
        if last > end or not slabs:
            slab = memory.empty_slab(last - end, end, self.M, self.device)
            self.snapshot = replace(self.snapshot, slabs=(*slabs, slab))

    def remove(self, rows: NDArray[np.int64]) -> None:
        with self._writing:
            snapshot = self.snapshot
            gone = np.unique(checked_rows(rows, snapshot.count))
            slabs, fresh = zip(*(memory.without(s, gone) for s in snapshot.slabs), strict=True)
            removed = snapshot.removed + sum(fresh)
            self.snapshot = replace(snapshot, slabs=slabs, removed=removed)

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | Mask | None = None,
        after: tuple[float, int] | None = None,
    ) -> Hits:
        return self.search_in(self.snapshot, luts, k, mask, after)

    def search_in(
        self,
        snapshot: CudaSnapshot,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | Mask | None,
        after: tuple[float, int] | None,
    ) -> Hits:
        """Searches a snapshot that was taken before, as ``search`` does."""
        tables = checked_shape(luts, self.M, k)
        require_finite(tables)
        slabs = snapshot.slabs if mask is None else self._eligible(snapshot, mask)
        if not len(tables):
            return np.empty((0, k), dtype=np.int64), np.empty((0, k), dtype=np.float32)
        last = key.key(*after) if after else LAST_KEY
        with memory.on(self.device):
            with memory.reporting_full("look-up tables", tables.nbytes, self.device):
                on_device = torch.tensor(tables, device=self.device)
            search = Search(slabs, snapshot.count, on_device, k, last, paging=after is not None)
            best = search.best().cpu()
            return key.rows(best).numpy(), key.scores(best).numpy()

    def _eligible(self, snapshot: CudaSnapshot, mask: NDArray[np.bool_] | Mask) -> tuple[Slab, ...]:
        slabs, rows = snapshot.slabs, checked_mask(mask)
        if isinstance(mask, Mask):
            return self._masks.eligible(mask, slabs, lambda n: memory.masked(slabs[n], rows))
        return tuple(memory.masked(slab, rows) for slab in slabs)
