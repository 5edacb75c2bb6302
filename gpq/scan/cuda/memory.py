"""Codes on a device: in slabs that never move, so that adding copies nothing again."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpq.errors import DeviceFull
from gpq.system.device import out_of_memory

LEAST_ROWS = 1 << 16  # of a slab
GROWTH = 8  # a further slab has room for a share of this of what there is
MULTIPLE = 2048  # rows of a slab come in so many, as in programs of the kernels
COPIED_ROWS = 1 << 22  # at a time
FEW = 1 << 16  # codes that are gathered on the device


@dataclass(frozen=True, eq=False)
class Slab:
    """planes (P,capacity) uint8, a code a column; its rows below the snapshot's count never
    change. live (capacity/8) uint8: a bit a row, 0 where it was removed."""

    planes: Tensor
    live: Tensor
    first_row: int

    @property
    def capacity(self) -> int:
        return self.planes.shape[1]

    @property
    def last_row(self) -> int:
        return self.first_row + self.capacity

    @property
    def bytes(self) -> int:
        return self.planes.nbytes + self.live.nbytes


def empty_slab(rows: int, first_row: int, M: int, device: torch.device) -> Slab:
    """With room for at least so many rows. Raises DeviceFull where the device has none."""
    room = max(LEAST_ROWS, first_row // GROWTH, rows)
    capacity = -(-room // MULTIPLE) * MULTIPLE
    width = (M + 1) // 2
    needed = capacity * width + capacity // 8
    with no_room(f"{capacity:,} codes", needed, device):
        planes = torch.zeros((width, capacity), dtype=torch.uint8, device=device)
        live = torch.full((capacity // 8,), 255, dtype=torch.uint8, device=device)
    return Slab(planes, live, first_row)


@contextmanager
def no_room(what: str, needed: int, device: torch.device) -> Iterator[None]:
    """Turns running out of a device's memory into a DeviceFull that says what was needed."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        free = free_bytes(device)
        raise DeviceFull(
            f"no room on {device} for {what}: {needed:,} bytes needed, {free:,} free"
        ) from None


def on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever its arguments are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def free_bytes(device: torch.device) -> int:
    """Of memory, after giving back what torch only keeps."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


def write(slab: Slab, first_row: int, packed: NDArray[np.uint8]) -> None:
    """Codes (n,P) from that row on; no search under way looks there."""
    for at in range(0, len(packed), COPIED_ROWS):
        part = torch.tensor(packed[at : at + COPIED_ROWS])  # a copy: it may be read-only
        column = first_row - slab.first_row + at
        device = slab.planes.device
        with no_room(f"{part.nbytes:,} bytes on their way", part.nbytes, device):
            slab.planes[:, column : column + len(part)] = part.to(device).T


def without(slab: Slab, rows: NDArray[np.int64]) -> tuple[Slab, int]:
    """With these rows, each once, removed where they are of the slab, and how many had not been;
    searches under way keep the old one."""
    columns = rows[inside(slab, rows)] - slab.first_row
    if not len(columns):
        return slab, 0
    words, of_word = np.unique(columns // 8, return_inverse=True)
    kept = np.full(len(words), 255, dtype=np.uint8)
    np.bitwise_and.at(kept, of_word, ~(np.uint8(1) << (columns % 8).astype(np.uint8)))
    device = slab.live.device
    with no_room(f"a copy of {slab.live.nbytes:,} bytes", slab.live.nbytes, device):
        live = slab.live.clone()
        where = torch.from_numpy(words).to(device)
        old = live[where]
        new = old & torch.from_numpy(kept).to(device)
        live[where] = new
    return replace(slab, live=live), int(np.unpackbits((old ^ new).cpu().numpy()).sum())


def masked(slab: Slab, mask: NDArray[np.bool_]) -> Slab:
    """Rows that are False in the mask, or after it, count as removed."""
    part = mask[slab.first_row : slab.last_row]
    bits = np.zeros(slab.capacity // 8, dtype=np.uint8)
    packed = np.packbits(part, bitorder="little")
    bits[: len(packed)] = packed
    device = slab.live.device
    with no_room(f"a mask of {bits.nbytes:,} bytes", bits.nbytes, device):
        return replace(slab, live=slab.live & torch.from_numpy(bits).to(device))


def gather(slabs: tuple[Slab, ...], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Codes (n,P) of rows (n,). Of many rows, and where the device is full, all that lies there
    is copied: that takes no more of its memory."""
    packed = np.empty((len(rows), slabs[0].planes.shape[0]), dtype=np.uint8)
    for slab in slabs:
        mine = inside(slab, rows)
        if mine.any():
            packed[mine] = _columns(slab, rows[mine] - slab.first_row)
    return packed


def _columns(slab: Slab, columns: NDArray[np.int64]) -> NDArray[np.uint8]:
    device = slab.planes.device
    if len(columns) <= FEW:
        with suppress(DeviceFull), no_room("some codes", columns.nbytes, device):
            found: NDArray[np.uint8] = (
                slab.planes[:, torch.from_numpy(columns).to(device)].T.cpu().numpy()
            )
            return found
    return np.stack([plane.cpu().numpy()[columns] for plane in slab.planes], axis=1)


def inside(slab: Slab, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (rows >= slab.first_row) & (rows < slab.last_row)


def live_rows(slabs: tuple[Slab, ...], count: int) -> NDArray[np.int64]:
    """Of the first ``count`` rows those not removed, ascending."""
    bits = [np.unpackbits(slab.live.cpu().numpy(), bitorder="little") for slab in slabs]
    return np.flatnonzero(np.concatenate(bits)[:count])
