import ctypes
import sys

import numpy as np
import pytest
import torch

from gpq.errors import DeviceError
from gpq.system import device
from gpq.system.device import in_parts_that_fit, out_of_memory, pick


class Device:
    """Has room for ``room`` items at once; keeps the parts it was asked to compute."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked: list[list[int]] = []

    def __call__(self, items: torch.Tensor) -> list[int]:
        self.asked.append(items.tolist())
        if len(items) > self.room:
            raise RuntimeError("CUDA error: out of memory")
        return [2 * item for item in items.tolist()]


def test_a_batch_is_halved_until_its_parts_fit() -> None:
    device, full = Device(2), []
    found = in_parts_that_fit(device, torch.arange(5), lambda: full.append(None))
    assert found == [[0, 2], [4], [6, 8]]
    assert device.asked == [[0, 1, 2, 3, 4], [0, 1], [2, 3, 4], [2], [3, 4]]
    assert len(full) == 2


def test_a_batch_that_fits_is_computed_at_once() -> None:
    assert in_parts_that_fit(Device(5), torch.arange(5)) == [[0, 2, 4, 6, 8]]


def test_without_room_for_one_the_devices_error_is_raised() -> None:
    device, full = Device(0), []
    with pytest.raises(RuntimeError, match="out of memory"):
        in_parts_that_fit(device, torch.arange(3), lambda: full.append(None))
    assert device.asked == [[0, 1, 2], [0]]
    assert len(full) == 2


def test_other_errors_are_raised_at_once() -> None:
    asked = []

    def wrong(items: torch.Tensor) -> None:
        asked.append(len(items))
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_parts_that_fit(wrong, torch.arange(3))
    assert asked == [3]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("any"), True),
        (MemoryError("Unable to allocate 1.00 EiB for an array"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_errors_for_want_of_memory_are_known(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


def test_arrays_are_halved_too_and_their_allocator_may_be_full() -> None:
    def compute(items: np.ndarray) -> list[int]:
        if len(items) > 1:
            np.empty(2**60, dtype=np.uint8)
        return items.tolist()

    assert in_parts_that_fit(compute, np.arange(3, dtype=np.uint8)) == [[0], [1], [2]]


class Driver:
    """Answers like the driver's library; ``codes``: what its functions return, 0 for success."""

    def __init__(self, count: int, *codes: int) -> None:
        self.count, self.codes = count, list(codes)

    def cuInit(self, flags: int) -> int:
        return self.codes[0]

    def cuDeviceGetCount(self, place: object) -> int:
        ctypes.cast(place, ctypes.POINTER(ctypes.c_int))[0] = self.count
        return self.codes[1]


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (Driver(2, 0, 0), 2),
        (Driver(2, 100, 0), 0),
        (Driver(2, 0, 3), 0),
        (object(), 0),  # a library without the functions
    ],
)
def test_the_driver_counts_the_devices(
    driver: object, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert device.cuda_devices.__wrapped__() == expected


def test_without_a_driver_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    load = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name: load("libnowhere.so"))
    assert device.cuda_devices.__wrapped__() == 0


@pytest.mark.parametrize(
    ("count", "installed", "expected"),
    [
        (0, False, "there is no CUDA device"),
        (1, False, "torch is not installed; install the extra cuda"),
        (1, True, ""),
    ],
)
def test_what_is_missing_for_cuda_is_said(
    count: int, installed: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cuda_devices", lambda: count)
    if not installed:
        monkeypatch.setitem(sys.modules, "torch", None)
    assert device.cuda_missing.__wrapped__() == expected


def test_the_device_that_is_asked_for_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_missing", lambda: "")
    assert [pick(name) for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(device, "cuda_missing", lambda: "there is no CUDA device")
    assert [pick(name) for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(DeviceError, match="cuda: there is no CUDA device; use cpu or auto"):
        pick("cuda")
