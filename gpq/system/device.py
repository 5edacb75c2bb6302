"""Where to compute, and whether there was room for it."""

import torch

from gpq.errors import DeviceError

NAMES = ("auto", "cpu", "cuda")
# What is said where there is no room, by torch, CUDA and Triton, by the CPU's allocator, and by
# libraries of CUDA: on a card that is full those cannot even begin.
NO_ROOM = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "DEVICE_ALLOCATION_FAILED",
    "unable to find an engine to execute",
)


def pick(name: str) -> torch.device:
    """auto, cpu or cuda; raises DeviceError where the device is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("cuda: torch sees no CUDA device; use cpu or auto")
    return torch.device(name)


def out_of_memory(error: Exception) -> bool:
    """True for a device's or the CPU allocator's failure; only one of them has a class."""
    return isinstance(error, torch.OutOfMemoryError) or any(s in str(error) for s in NO_ROOM)
