"""Chooses the device to compute on, and copes with running out of its memory."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpq.errors import DeviceError

NAMES = ("auto", "cpu", "cuda")
# Parts of the messages that torch, CUDA, Triton and the CPU's allocator give if memory runs out.
# CUDA's libraries fail to initialise on a GPU that is full.
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

Items = TypeVar("Items", NDArray[np.uint8], Tensor)
Found = TypeVar("Found")


def pick(name: str) -> torch.device:
    """Returns the device called ``auto``, ``cpu`` or ``cuda``; auto prefers CUDA.

    Raises DeviceError if the device does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("cuda: torch sees no CUDA device; use cpu or auto")
    return torch.device(name)


def out_of_memory(error: Exception) -> bool:
    """Returns whether a device or the CPU's allocator ran out of memory.

    Only some of these errors are a torch.OutOfMemoryError; the others are known by their text.
    """
    return isinstance(error, torch.OutOfMemoryError) or any(s in str(error) for s in NO_ROOM)


def in_parts_that_fit(
    compute: Callable[[Items], Found],
    items: Items,
    on_full: Callable[[], object] = lambda: None,
) -> list[Found]:
    """Computes a batch at once or, if memory runs out, each half of it in the same way.

    Returns the results of the parts, in order. ``on_full``: called each time memory runs out.
    Raises the device's error if a single item has no room.
    """
    try:
        return [compute(items)]
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        on_full()
        if len(items) < 2:
            raise
    torch.cuda.empty_cache()  # here the error, which keeps its frames' tensors alive, is gone
    half = len(items) // 2
    found = in_parts_that_fit(compute, items[:half], on_full)
    return found + in_parts_that_fit(compute, items[half:], on_full)
