"""Searches codes on NVIDIA GPUs.

May import the modules of ``gpq.scan``, ``gpq.system`` and ``gpq.errors``. Triton is imported only
when a scanner is built, because not every installation has it.
"""

import importlib.util
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from gpq.errors import DeviceFull
from gpq.scan.scanner import Scanner


@cache
def missing() -> str:
    """Why there is no CUDA engine here, or nothing where there is one."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; it comes with torch for Linux"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return _failure()


def _failure() -> str:
    """Of a search, of one query and of several, if any: besides a card that is not too old, Triton
    needs a C compiler, and a folder of which programs may be loaded."""
    from gpq.scan.cuda.scanner import CudaScanner
    from gpq.scan.cuda.search import MANY

    try:
        scanner = CudaScanner(np.zeros((1, 1), dtype=np.uint8), 1, "cuda")
        for queries in (1, MANY):
            scanner.search(np.zeros((queries, 1, 16), dtype=np.float32), 1)
    except DeviceFull:
        return ""  # for now
    except Exception as error:  # of Triton, of a compiler, of the driver
        return f"a search fails: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""


def describe() -> str:
    """The devices that would be used."""
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return f"on {', '.join(names)}"


def build(packed: NDArray[np.uint8], M: int, device: torch.device | str | None = None) -> Scanner:
    """On one device, or without a number on all there are, as shards of the rows."""
    from gpq.scan.cuda.scanner import CudaScanner  # compiles nothing yet, but imports triton
    from gpq.scan.cuda.shards import ShardedScanner

    wanted = torch.device(device or "cuda")
    count = torch.cuda.device_count() if wanted.type == "cuda" and wanted.index is None else 1
    if count < 2:
        return CudaScanner(packed, M, wanted)
    devices = [torch.device("cuda", n) for n in range(count)]
    return ShardedScanner([CudaScanner(part, M, d) for part, d in shares(packed, devices)])


def shares(
    packed: NDArray[np.uint8], devices: list[torch.device]
) -> list[tuple[NDArray[np.uint8], torch.device]]:
    """Of every so many rows one for each device."""
    return [(packed[n :: len(devices)], device) for n, device in enumerate(devices)]
