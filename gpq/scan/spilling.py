"""Codes on a device while they have room there, then in the memory of the CPU."""

import logging
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gpq.errors import DeviceFull
from gpq.scan.hits import Hits
from gpq.scan.mask import Mask
from gpq.scan.scanner import Scanner

log = logging.getLogger("gpq")


class SpillingScanner:
    """See ``gpq.scan.Scanner``. Where the device has no room, also for a search, the codes move,
    once, with a warning; nothing is lost and rows keep their numbers.

    on_device, on_cpu: build a scanner over packed codes; the first may raise DeviceFull.
    """

    def __init__(
        self,
        packed: NDArray[np.uint8],
        on_device: Callable[[NDArray[np.uint8]], Scanner],
        on_cpu: Callable[[NDArray[np.uint8]], Scanner],
    ) -> None:
        self._on_cpu = on_cpu
        self._code_bytes = packed.shape[1]
        self._writing = threading.RLock()
        self._count = len(packed)  # rows ever added
        try:
            self._scanner = on_device(packed)
        except DeviceFull as error:
            log.warning("the codes are searched on the CPU: %s", error)
            self._scanner = on_cpu(packed)

    @property
    def engine(self) -> str:
        return self._scanner.engine

    def __len__(self) -> int:
        return len(self._scanner)

    def rows(self) -> NDArray[np.int64]:
        return self._scanner.rows()

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self._scanner.codes(rows)

    def add(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        with self._writing:
            try:
                rows = self._scanner.add(packed)
            except DeviceFull as error:
                rows = self._moved(self._scanner, error).add(packed)
            self._count += len(rows)
            return rows

    def remove(self, rows: NDArray[np.int64]) -> None:
        with self._writing:
            try:
                self._scanner.remove(rows)
            except DeviceFull as error:
                self._moved(self._scanner, error).remove(rows)

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | Mask | None = None,
        after: tuple[float, int] | None = None,
    ) -> Hits:
        scanner = self._scanner
        try:
            return scanner.search(luts, k, mask, after)
        except DeviceFull as error:
            return self._moved(scanner, error).search(luts, k, mask, after)

    def _moved(self, scanner: Scanner, error: DeviceFull) -> Scanner:
        """What now stands in the place of this scanner."""
        with self._writing:
            if self._scanner is scanner:
                log.warning("the codes move to the CPU: %s", error)
                live = scanner.rows()
                packed = np.zeros((self._count, self._code_bytes), dtype=np.uint8)
                packed[live] = scanner.codes(live)
                moved = self._on_cpu(packed)
                moved.remove(np.setdiff1d(np.arange(self._count), live, assume_unique=True))
                self._scanner = moved
            return self._scanner
