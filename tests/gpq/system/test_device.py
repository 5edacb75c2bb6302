import pytest
import torch

from gpq.errors import DeviceError
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
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_errors_for_want_of_memory_are_known(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


def test_the_device_that_is_asked_for_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [pick(name).type for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick("auto").type == "cpu"
    with pytest.raises(DeviceError, match="no CUDA device"):
        pick("cuda")
