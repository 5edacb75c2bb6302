"""Finds the k best codes for a query exactly, with one of several engines.

May import ``gpq.model``, ``gpq.native``, ``gpq.system`` and ``gpq.errors``.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from gpq.errors import ScanError
from gpq.scan import cuda, native
from gpq.scan.mask import Mask
from gpq.scan.reference import ReferenceScanner
from gpq.scan.scanner import Scanner
from gpq.scan.spilling import SpillingScanner

__all__ = ["ENGINES", "Mask", "Scanner", "build", "choose"]

ENGINES = ("reference", "native", "cuda")


def choose(engine: str) -> tuple[str, str]:
    """The name of the engine that ``engine``, auto included, stands for here, and why.

    Raises ScanError for an engine this installation does not have.
    """
    if engine not in ("auto", *ENGINES):
        raise ScanError(f"no scan engine {engine!r} in this version; there are auto, {ENGINES}")
    if engine == "reference":
        return engine, "asked for"
    reasons: list[str] = []
    for name, here in (("cuda", cuda), ("native", native)):
        if engine not in ("auto", name):
            continue
        if not (reason := here.missing()):
            chosen = f"{'the fastest here' if engine == 'auto' else 'asked for'}, {here.describe()}"
            return name, "; ".join([chosen, *reasons])
        reasons.append(f"no {name} scan engine here: {reason}")
    if engine != "auto":
        raise ScanError("; ".join(reasons))
    return "reference", "; ".join(reasons)


def build(
    packed: NDArray[np.uint8],
    M: int,
    engine: str = "auto",
    device: torch.device | str | None = None,
) -> Scanner:
    """A scanner over packed codes (N,ceil(M/2)) uint8; rows 0…N-1. device: of the cuda engine,
    all there are by default.

    Raises ScanError for an engine this installation does not have, DeviceFull where the cuda
    engine was asked for and the codes have no room; by auto they are in the CPU's memory then.
    """
    chosen = choose(engine)[0]
    if chosen == "cuda" and engine == "auto":
        return SpillingScanner(
            packed,
            lambda codes: cuda.build(codes, M, device),
            lambda codes: _on_cpu(codes, M, "reference" if native.missing() else "native"),
        )
    if chosen == "cuda":
        return cuda.build(packed, M, device)
    return _on_cpu(packed, M, chosen)


def _on_cpu(packed: NDArray[np.uint8], M: int, engine: str) -> Scanner:
    return native.NativeScanner(packed, M) if engine == "native" else ReferenceScanner(packed, M)
