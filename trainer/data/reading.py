"""Decodes image files to pixels, with the same code as the service."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gpq.errors import ImageError
from gpq.pixels.decode import load
from gpq.pixels.preprocess import Preprocess
from trainer.errors import TrainerError

READ_AT_ONCE = 256  # images in a chunk: at 224 pixels 39 MB


@dataclass(frozen=True)
class Chunk:
    """Some images: pixels (R,3,S,S) uint8, their rows, and a line for each file that failed."""

    pixels: Tensor
    rows: list[int]
    skipped: list[str]


def chunks(files: Sequence[Path], rules: Preprocess, what: str) -> Iterator[Chunk]:
    """Decodes files in order; yields READ_AT_ONCE of them at a time.

    The next ones are decoded meanwhile. ``what``: a name for the progress bar.
    """

    def one(path: Path) -> NDArray[np.uint8] | str:
        try:
            image = load(path.read_bytes(), shrink_to=rules.shrink_to)
            return rules.pixels(image).transpose(2, 0, 1)
        except (ImageError, OSError, ValueError) as error:  # a NUL in a path is a ValueError
            return f"{path}: {error}"

    with (
        ThreadPoolExecutor(os.cpu_count()) as threads,
        tqdm(total=len(files), desc=f"reading {what}", unit="image", leave=False) as progress,
    ):
        starts = range(0, len(files), READ_AT_ONCE)
        parts = [files[first : first + READ_AT_ONCE] for first in starts]
        waiting = deque([threads.map(one, part) for part in parts[:1]])
        for number, first in enumerate(starts):
            waiting += [threads.map(one, part) for part in parts[number + 1 : number + 2]]
            decoded = list(waiting.popleft())
            rows = [n for n, image in enumerate(decoded) if not isinstance(image, str)]
            pixels = np.empty((len(rows), 3, rules.size, rules.size), dtype=np.uint8)
            for place, n in enumerate(rows):
                pixels[place] = decoded[n]
            failed = [line for line in decoded if isinstance(line, str)]
            yield Chunk(torch.from_numpy(pixels), [first + n for n in rows], failed)
            progress.update(len(decoded))


def read_images(
    files: Sequence[Path], rules: Preprocess, what: str
) -> tuple[Tensor, list[int], list[str]]:
    """Reads images of ``rules.size`` pixels a side.

    Returns the pixels (N,3,S,S) uint8 of the files that decode, their positions in ``files``,
    and a line with the reason for each of the others. ``what``: a name for the progress bar.

    An image takes 3 · S² bytes: 60,000 at 32×32 take 184 MB, a million at 64×64 take 12 GB.
    Raises TrainerError if they do not fit into memory.
    """
    try:
        pixels = np.empty((len(files), 3, rules.size, rules.size), dtype=np.uint8)
    except MemoryError as error:
        needed = len(files) * 3 * rules.size**2 / 2**30
        raise TrainerError(
            f"{len(files)} images of {rules.size} pixels a side need {needed:.1f} GiB of memory: "
            "give a smaller --size or fewer images"
        ) from error
    kept: list[int] = []
    skipped: list[str] = []
    for chunk in chunks(files, rules, what):
        pixels[len(kept) : len(kept) + len(chunk.rows)] = chunk.pixels.numpy()
        kept += chunk.rows
        skipped += chunk.skipped
    return torch.from_numpy(pixels[: len(kept)]), kept, skipped
