"""Stores codes on a device in slabs that never move, so that adding codes copies no older ones."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpq.errors import DeviceFull
from gpq.system.device import out_of_memory

LEAST_ROWS = 1 << 16  # rows of a slab, at least
GROWTH = 8  # a new slab has room for at least 1/GROWTH of the rows before it
MULTIPLE = 2048  # a slab has a multiple of this many rows, as programs of the kernels need
COPIED_ROWS = 1 << 22  # rows copied to the device at a time
FEW = 1 << 16  # up to this many codes are gathered on the device


@dataclass(frozen=True, eq=False)
class Slab:
    """A block of memory for codes on one device.

    ``planes``: (P,capacity) uint8, one column for each code. Columns of rows below the count of a
    snapshot never change.
    ``live``: (capacity/8) uint8, one bit for each row, which is 0 if the row is removed.
    ``first_row``: the row of the first column.
    """

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
    """Allocates a slab for at least ``rows`` rows; raises DeviceFull if memory is short."""
    room = max(LEAST_ROWS, first_row // GROWTH, rows)
    capacity = -(-room // MULTIPLE) * MULTIPLE
    width = (M + 1) // 2
    needed = capacity * width + capacity // 8
    with reporting_full(f"{capacity:,} codes", needed, device):
        planes = torch.zeros((width, capacity), dtype=torch.uint8, device=device)
        live = torch.full((capacity // 8,), 255, dtype=torch.uint8, device=device)
    return Slab(planes, live, first_row)


@contextmanager
def reporting_full(purpose: str, needed: int, device: torch.device) -> Iterator[None]:
    """Raises DeviceFull, with the memory needed and free, if the block runs out of memory.

    ``purpose``: what the block allocates memory for, as a noun.
    """
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        free = free_bytes(device)
        raise DeviceFull(
            f"too little memory on {device} for {purpose}: {needed:,} bytes needed, {free:,} free"
        ) from None


def on(device: torch.device) -> AbstractContextManager[object]:
    """Makes a device current. Triton launches kernels there, not on the device of the arguments."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def free_bytes(device: torch.device) -> int:
    """Returns the free memory of a device, after torch has given back the memory in its cache."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


def write(slab: Slab, first_row: int, packed: NDArray[np.uint8]) -> None:
    """Writes codes (n,P) from a row on, which no running search may see."""
    for at in range(0, len(packed), COPIED_ROWS):
        part = torch.tensor(packed[at : at + COPIED_ROWS])  # the array may be read-only: copy it
        column = first_row - slab.first_row + at
        device = slab.planes.device
        with reporting_full("an upload of codes", part.nbytes, device):
            slab.planes[:, column : column + len(part)] = part.to(device).T


def without(slab: Slab, rows: NDArray[np.int64]) -> tuple[Slab, int]:
    """Returns the slab without some rows, and how many of them were not removed before.

    ``rows``: distinct rows; those outside the slab are ignored.
    Running searches keep using the old slab.
    """
    columns = rows[inside(slab, rows)] - slab.first_row
    if not len(columns):
        return slab, 0
    words, word_of_column = np.unique(columns // 8, return_inverse=True)
    kept = np.full(len(words), 255, dtype=np.uint8)
    np.bitwise_and.at(kept, word_of_column, ~(np.uint8(1) << (columns % 8).astype(np.uint8)))
    device = slab.live.device
    with reporting_full(f"a copy of {slab.live.nbytes:,} bytes", slab.live.nbytes, device):
        live = slab.live.clone()
        places = torch.from_numpy(words).to(device)
        old = live[places]
        new = old & torch.from_numpy(kept).to(device)
        live[places] = new
    return replace(slab, live=live), int(np.unpackbits((old ^ new).cpu().numpy()).sum())


def masked(slab: Slab, mask: NDArray[np.bool_]) -> Slab:
    """Returns the slab without the rows that are False in the mask or lie behind its end."""
    part = mask[slab.first_row : slab.last_row]
    bits = np.zeros(slab.capacity // 8, dtype=np.uint8)
    packed = np.packbits(part, bitorder="little")
    bits[: len(packed)] = packed
    device = slab.live.device
    with reporting_full(f"a mask of {bits.nbytes:,} bytes", bits.nbytes, device):
        return replace(slab, live=slab.live & torch.from_numpy(bits).to(device))


def gather(slabs: tuple[Slab, ...], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Returns the codes (n,P) of rows (n,).

    For many rows, and if the device is full, whole planes are copied to the CPU and gathered
    there, which takes no further memory of the device.
    """
    packed = np.empty((len(rows), slabs[0].planes.shape[0]), dtype=np.uint8)
    for slab in slabs:
        mine = inside(slab, rows)
        if mine.any():
            packed[mine] = _columns(slab, rows[mine] - slab.first_row)
    return packed


def _columns(slab: Slab, columns: NDArray[np.int64]) -> NDArray[np.uint8]:
    device = slab.planes.device
    if len(columns) <= FEW:
        with suppress(DeviceFull), reporting_full("some codes", columns.nbytes, device):
            found: NDArray[np.uint8] = (
                slab.planes[:, torch.from_numpy(columns).to(device)].T.cpu().numpy()
            )
            return found
    return np.stack([plane.cpu().numpy()[columns] for plane in slab.planes], axis=1)


def inside(slab: Slab, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns which of the rows (n,) lie in the slab, as (n,) bool."""
    return (rows >= slab.first_row) & (rows < slab.last_row)


def live_rows(slabs: tuple[Slab, ...], count: int) -> NDArray[np.int64]:
    """Returns those of the first ``count`` rows that are not removed, in ascending order."""
    bits = [np.unpackbits(slab.live.cpu().numpy(), bitorder="little") for slab in slabs]
    return np.flatnonzero(np.concatenate(bits)[:count])
