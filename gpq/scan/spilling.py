"""Codes on a device while they have room there, then in the memory of the CPU for a while."""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gpq.errors import DeviceFull
from gpq.scan.hits import Hits
from gpq.scan.mask import Mask
from gpq.scan.scanner import Scanner

RETRY_SECONDS = 60  # until the device is tried again; twice as many after each move off it
MOST_RETRY_SECONDS = 3600
Build = Callable[[NDArray[np.uint8]], Scanner]
log = logging.getLogger("gpq")


class SpillingScanner:
    """See ``gpq.scan.Scanner``. Where the device has no room, also for a search, the codes move,
    with a warning, and go back in the background where a later search finds that it is time;
    nothing is lost and rows keep their numbers. While they move, what changes them waits.

    on_device, on_cpu: build a scanner over packed codes; the first may raise DeviceFull.
    """

    def __init__(self, packed: NDArray[np.uint8], on_device: Build, on_cpu: Build) -> None:
        self._on_device, self._on_cpu = on_device, on_cpu
        self._code_bytes = packed.shape[1]
        self._writing = threading.RLock()
        self._count = len(packed)  # rows ever added
        self._retry_seconds = RETRY_SECONDS
        self._retry_at = np.inf
        try:
            self._scanner = on_device(packed)
        except DeviceFull as error:
            log.warning("the codes are searched on the CPU for now: %s", error)
            self._scanner = on_cpu(packed)
            self._retry_later()

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
        if time.monotonic() >= self._retry_at:
            self._retry_at = np.inf
            threading.Thread(target=self._go_back, name="codes", daemon=True).start()
        scanner = self._scanner
        try:
            return scanner.search(luts, k, mask, after)
        except DeviceFull as error:
            return self._moved(scanner, error).search(luts, k, mask, after)

    def _moved(self, scanner: Scanner, error: DeviceFull) -> Scanner:
        """What now stands in the place of this scanner."""
        with self._writing:
            if self._scanner is scanner:
                log.warning("the codes move to the CPU for now: %s", error)
                self._scanner = self._rebuilt(self._on_cpu)
                self._retry_later()
                self._retry_seconds = min(2 * self._retry_seconds, MOST_RETRY_SECONDS)
            return self._scanner

    def _go_back(self) -> None:
        with self._writing:
            try:
                self._scanner = self._rebuilt(self._on_device)
            except DeviceFull:
                self._retry_later()
            else:
                log.warning("the codes are on the device again")

    def _retry_later(self) -> None:
        self._retry_at = time.monotonic() + self._retry_seconds

    def _rebuilt(self, build: Build) -> Scanner:
        """Of the same rows."""
        live = self._scanner.rows()
        packed = np.zeros((self._count, self._code_bytes), dtype=np.uint8)
        packed[live] = self._scanner.codes(live)
        scanner = build(packed)
        scanner.remove(np.setdiff1d(np.arange(self._count), live, assume_unique=True))
        return scanner
