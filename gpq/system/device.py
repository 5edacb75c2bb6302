"""Chooses the device to compute on, and copes with running out of its memory."""

import ctypes
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from typing import Protocol, Self, TypeVar

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


class Rows(Protocol):
    """The items of a batch: the rows of an array or of a tensor."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> Self: ...


Items = TypeVar("Items", bound=Rows)
Found = TypeVar("Found")


def pick(name: str) -> str:
    """Returns the device for ``auto``, ``cpu`` or ``cuda``: cpu or cuda; auto prefers cuda.

    Raises DeviceError if the device cannot be used.
    """
    if name == "auto":
        return "cpu" if cuda_missing() else "cuda"
    if name == "cuda" and (reason := cuda_missing()):
        raise DeviceError(f"cuda: {reason}; use cpu or auto")
    return name


@cache
def cuda_missing() -> str:
    """Returns the reason why no CUDA device can be used, or an empty string if one can.

    It does not import torch, which may still find that the driver is too old for it.
    """
    if not cuda_devices():
        return "there is no CUDA device"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed; install the extra cuda"
    return ""


@cache
def cuda_devices() -> int:
    """Returns the number of CUDA devices that the driver shows this process, 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return 0
    except (OSError, AttributeError):  # there is no driver, or its library is another
        return 0
    return count.value


def out_of_memory(error: Exception) -> bool:
    """Returns whether a device or the CPU's allocator ran out of memory.

    Only some of these errors have a class of their own; the others are known by their text.
    """
    torch = sys.modules.get("torch")  # no error is torch's if nothing has imported it
    kinds = (torch.OutOfMemoryError, MemoryError) if torch else (MemoryError,)
    return isinstance(error, kinds) or any(s in str(error) for s in NO_ROOM)


def in_parts_that_fit(
    compute: Callable[[Items], Found],
    items: Items,
    on_full: Callable[[], object] = lambda: None,
) -> list[Found]:
    """Computes a batch, an array or a tensor, at once or, if memory runs out, in halves.

    Each half is computed in the same way.
    Returns the results of the parts, in order. ``on_full``: called each time memory runs out.
    Raises the device's error if a single item has no room.
    """
    try:
        return [compute(items)]
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        on_full()
        if len(items) < 2:
            raise
    _empty_cache()  # here the error, which keeps its frames' tensors alive, is gone
    half = len(items) // 2
    found = in_parts_that_fit(compute, items[:half], on_full)
    return found + in_parts_that_fit(compute, items[half:], on_full)


def _empty_cache() -> None:
    """Gives back the memory in torch's cache, if torch is in use."""
    if torch := sys.modules.get("torch"):
        torch.cuda.empty_cache()  # does nothing before CUDA is initialised
