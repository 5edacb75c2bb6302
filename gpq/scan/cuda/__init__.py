"""Searches codes on NVIDIA GPUs.

May import the modules of ``gpq.scan``, ``gpq.system`` and ``gpq.errors``. Its modules import torch
and Triton, which not every installation has. This one imports them only if there is a device.
"""

import importlib.util
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gpq.scan.scanner import Scanner
from gpq.system.device import cuda_missing


@cache
def missing() -> str:
    """Returns the reason why the CUDA engine cannot be used, or an empty string if it can."""
    if reason := cuda_missing():
        return reason
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; it comes with torch for Linux"
    from gpq.scan.cuda import devices

    return devices.search_failure()


def describe() -> str:
    """Names the devices that the engine would use."""
    from gpq.scan.cuda import devices

    return devices.describe()


def build(packed: NDArray[np.uint8], M: int, device: str | None = None) -> Scanner:
    """Builds a scanner on one device, or on all devices if ``device`` has no number."""
    from gpq.scan.cuda import devices

    return devices.build(packed, M, device)
