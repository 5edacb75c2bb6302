"""Chooses a scan engine and builds its scanner. Add a new engine here."""

import numpy as np
from numpy.typing import NDArray

from gpq.errors import ScanError
from gpq.scan import cuda, native
from gpq.scan.reference import ReferenceScanner
from gpq.scan.scanner import Scanner
from gpq.scan.spilling import SpillingScanner

ENGINES = ("reference", "native", "cuda")


def choose(engine: str) -> tuple[str, str]:
    """Returns the name of the engine to use for ``engine``, which may be auto, and the reason.

    Raises ScanError if the engine is not available on this machine.
    """
    if engine not in ("auto", *ENGINES):
        raise ScanError(
            f"there is no scan engine {engine!r}; choose one of auto, {', '.join(ENGINES)}"
        )
    if engine == "reference":
        return engine, "requested"
    reasons: list[str] = []
    for name, module in (("cuda", cuda), ("native", native)):
        if engine not in ("auto", name):
            continue
        if not (reason := module.missing()):
            why = "the fastest available" if engine == "auto" else "requested"
            return name, "; ".join([f"{why}, {module.describe()}", *reasons])
        reasons.append(f"the {name} scan engine is unavailable: {reason}")
    if engine != "auto":
        raise ScanError("; ".join(reasons))
    return "reference", "; ".join(reasons)


def build(
    packed: NDArray[np.uint8],
    M: int,
    engine: str = "auto",
    device: str | None = None,
) -> Scanner:
    """Builds a scanner over packed codes (N,ceil(M/2)) uint8, which are rows 0…N-1.

    ``device``: the device of the cuda engine; by default it uses all CUDA devices.
    Raises ScanError if the engine is not available. If a device has too little memory for the
    codes, ``cuda`` raises DeviceFull, and ``auto`` keeps them in the memory of the CPU.
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
