"""Tries, names and divides the CUDA devices of this machine."""

import numpy as np
import torch
from numpy.typing import NDArray

from gpq.errors import DeviceFull
from gpq.scan.cuda.scanner import CudaScanner
from gpq.scan.cuda.search import MANY
from gpq.scan.cuda.shards import ShardedScanner
from gpq.scan.scanner import Scanner


def search_failure() -> str:
    """Searches with one query and with several, and returns why that fails, or an empty string.

    Triton needs a GPU that is not too old, a C compiler, and a folder from which programs may be
    loaded.
    """
    try:
        scanner = CudaScanner(np.zeros((1, 1), dtype=np.uint8), 1, "cuda")
        for queries in (1, MANY):
            scanner.search(np.zeros((queries, 1, 16), dtype=np.float32), 1)
    except DeviceFull:
        return ""  # the engine works; the memory is full only for now
    except Exception as error:  # Triton, the compiler and the driver raise many kinds
        return f"a search fails: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""


def describe() -> str:
    """Names the devices that the engine would use."""
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return f"on {', '.join(names)}"


def build(packed: NDArray[np.uint8], M: int, device: str | None) -> Scanner:
    """Builds a scanner on one device, or on all devices if ``device`` has no number."""
    wanted = torch.device(device or "cuda")
    count = torch.cuda.device_count() if wanted.type == "cuda" and wanted.index is None else 1
    if count < 2:
        return CudaScanner(packed, M, wanted)
    devices = [torch.device("cuda", n) for n in range(count)]
    return ShardedScanner([CudaScanner(part, M, d) for part, d in shares(packed, devices)])


def shares(
    packed: NDArray[np.uint8], devices: list[torch.device]
) -> list[tuple[NDArray[np.uint8], torch.device]]:
    """Divides codes among G devices: each gets every G-th row."""
    return [(packed[n :: len(devices)], device) for n, device in enumerate(devices)]
