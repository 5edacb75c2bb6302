"""Exact top-k by look-up tables over packed codes; one signature for every engine.

Score: the float32 sum of LUT[m, code_m] over m = 0…M-1, in that order, no FMA.
Order: score descending, then row ascending. ``reference`` is the definition; any
other engine returns exactly its rows and scores.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from gpq.errors import ScanError
from gpq.scan import native
from gpq.scan.reference import ReferenceScanner

ENGINES = ("reference", "native")


class Scanner(Protocol):
    """Codes in memory. Rows are numbered from 0 in order of adding and never renumbered.

    A search sees one immutable snapshot, whatever is added or removed meanwhile.
    """

    engine: str

    def search(
        self,
        luts: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None = None,
        after: tuple[float, int] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """luts (Q,M,K) float32 -> rows (Q,k) int64, scores (Q,k) float32.

        mask (n,) bool: only rows below n that are True. An array that cannot be written to
        (``setflags(write=False)``) is for many searches: an engine may prepare it on the first.
        after: only hits that come later in the order than this (score, row).
        Missing hits are row -1, score -inf.
        Raises ScanError for a wrong shape, k < 1, or a look-up table that is not finite, or so
        large that a score could overflow.
        """

    def add(self, packed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Append codes (n,ceil(M/2)) uint8 and return their rows (n,) int64."""

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Take rows out of all later searches; rows already out are ignored.

        Raises ScanError for a row that never was.
        """

    def rows(self) -> NDArray[np.int64]:
        """The rows not taken out, ascending."""

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Packed codes (n,ceil(M/2)) uint8 of rows (n,) int64 that are not taken out.

        A row's code never changes. Raises ScanError for a row that never was.
        """

    def __len__(self) -> int:
        """Live rows."""


def choose(engine: str) -> tuple[str, str]:
    """The name of the engine that ``engine``, auto included, stands for here, and why.

    Raises ScanError for an engine this installation does not have.
    """
    if engine not in ("auto", *ENGINES):
        raise ScanError(f"no scan engine {engine!r} in this version; there are auto, {ENGINES}")
    if engine == "reference":
        return engine, "asked for"
    if reason := native.missing():
        if engine == "native":
            raise ScanError(f"no native scan engine here: {reason}")
        return "reference", reason
    return "native", f"the fastest here, with {native.instructions()} instructions"


def build(
    packed: NDArray[np.uint8],
    M: int,
    engine: str = "auto",
    device: torch.device | str | None = None,
) -> Scanner:
    """A scanner over packed codes (N,ceil(M/2)) uint8; rows 0…N-1.

    Raises ScanError for an engine this installation does not have.
    """
    if choose(engine)[0] == "native":
        return native.NativeScanner(packed, M)
    return ReferenceScanner(packed, M)
