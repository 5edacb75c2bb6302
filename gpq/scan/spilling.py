"""Keeps codes on a device, or in the memory of the CPU for a while if the device is full."""

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

RETRY_SECONDS = 60  # until the device is tried again; doubles each time the codes leave it
MOST_RETRY_SECONDS = 3600
Build = Callable[[NDArray[np.uint8]], Scanner]
log = logging.getLogger("gpq")


class SpillingScanner:
    """A ``gpq.scan.Scanner`` that moves its codes to the CPU if the device runs out of memory.

    The codes move, with a warning, if the device has too little memory for them or for a search.
    The first search after RETRY_SECONDS tries to move them back, in the background. Moving loses no
    code and changes no row; additions and removals wait for it.

    ``on_device``, ``on_cpu``: build a scanner over packed codes; ``on_device`` may raise
    DeviceFull.
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
                rows = self._move_to_cpu(self._scanner, error).add(packed)
            self._count += len(rows)
            return rows

    def remove(self, rows: NDArray[np.int64]) -> None:
        with self._writing:
            try:
                self._scanner.remove(rows)
            except DeviceFull as error:
                self._move_to_cpu(self._scanner, error).remove(rows)

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | Mask | None = None,
        after: tuple[float, int] | None = None,
    ) -> Hits:
        if time.monotonic() >= self._retry_at:
            self._retry_at = np.inf
            threading.Thread(target=self._move_to_device, name="codes", daemon=True).start()
        scanner = self._scanner
        try:
            return scanner.search(luts, k, mask, after)
        except DeviceFull as error:
            return self._move_to_cpu(scanner, error).search(luts, k, mask, after)

    def _move_to_cpu(self, scanner: Scanner, error: DeviceFull) -> Scanner:
        """Moves the codes of ``scanner`` to the CPU, if another thread has not moved them yet.

        Returns the scanner that replaces it.
        """
        with self._writing:
            if self._scanner is scanner:
                log.warning("the codes move to the CPU for now: %s", error)
                self._scanner = self._rebuilt(self._on_cpu)
                self._retry_later()
                self._retry_seconds = min(2 * self._retry_seconds, MOST_RETRY_SECONDS)
            return self._scanner

    def _move_to_device(self) -> None:
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
        """Builds a scanner with the same rows."""
        live = self._scanner.rows()
        packed = np.zeros((self._count, self._code_bytes), dtype=np.uint8)
        packed[live] = self._scanner.codes(live)
        scanner = build(packed)
        scanner.remove(np.setdiff1d(np.arange(self._count), live, assume_unique=True))
        return scanner
