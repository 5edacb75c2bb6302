"""The scan on NVIDIA GPUs. Nothing of triton is imported before a scanner is built."""

import importlib.util
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from gpq.scan.scanner import Scanner


@cache
def missing() -> str:
    """Why there is no CUDA engine here, or nothing where there is one."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; it comes with torch for Linux"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
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
