"""Images that are read when they are needed, from files or from memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from gpq.pixels.preprocess import Preprocess
from trainer.data.reading import READ_AT_ONCE, Chunk, chunks, read_images
from trainer.errors import TrainerError


class Images(Protocol):
    """Images in a fixed order.

    pixels: images (R,3,S,S) uint8 of some rows; raises TrainerError if one cannot be read. chunks:
    all images in order, a few at a time; files that cannot be read are left out and listed.
    at: the images of some rows, without reading them. ``what``: a name for the progress bar.
    """

    def __len__(self) -> int: ...
    def pixels(self, rows: Tensor) -> Tensor: ...
    def chunks(self, what: str) -> Iterator[Chunk]: ...
    def at(self, rows: Tensor) -> "Images": ...


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory, (N,3,S,S) uint8, or some ``rows`` (R,) of them, which are not copied."""

    array: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.array if self.rows is None else self.rows)

    def pixels(self, rows: Tensor) -> Tensor:
        return self.array[self._own(rows).to(self.array.device)].cpu()

    def chunks(self, what: str) -> Iterator[Chunk]:
        for part in torch.split(torch.arange(len(self)), READ_AT_ONCE):
            yield Chunk(self.pixels(part), part.tolist(), [])

    def at(self, rows: Tensor) -> "ArrayImages":
        return ArrayImages(self.array, self._own(rows))

    def _own(self, rows: Tensor) -> Tensor:
        return rows if self.rows is None else self.rows[rows]


@dataclass(frozen=True)
class FileImages:
    """Images in files, which are decoded by ``rules`` each time they are needed."""

    files: Sequence[Path]
    rules: Preprocess

    def __len__(self) -> int:
        return len(self.files)

    def pixels(self, rows: Tensor) -> Tensor:
        wanted = [self.files[row] for row in rows.tolist()]
        found, _, failed = read_images(wanted, self.rules, "images again")
        if failed:
            raise TrainerError(
                f"{failed[0]}: it was readable before: leave the images as they are during a run"
            )
        return found

    def chunks(self, what: str) -> Iterator[Chunk]:
        return chunks(self.files, self.rules, what)

    def at(self, rows: Tensor) -> "FileImages":
        return FileImages([self.files[row] for row in rows.tolist()], self.rules)


def rows_where(chosen: Tensor) -> Tensor:
    """Returns the numbers of the rows that a mask (N,) chooses."""
    return torch.nonzero(chosen).flatten()
