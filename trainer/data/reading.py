"""Decodes image files to pixels, with the same code as the service."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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

READ_AHEAD = 1024  # files in the threads' queue; a million of them would take much memory


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

    def one(path: Path) -> NDArray[np.uint8] | str:
        try:
            image = load(path.read_bytes(), shrink_to=rules.shrink_to)
            return rules.pixels(image).transpose(2, 0, 1)
        except (ImageError, OSError, ValueError) as error:  # a NUL in a path is a ValueError
            return f"{path}: {error}"

    kept: list[int] = []
    skipped: list[str] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as threads,
        tqdm(total=len(files), desc=f"reading {what}", leave=False) as progress,
    ):
        for first in range(0, len(files), READ_AHEAD):
            part = files[first : first + READ_AHEAD]
            for position, decoded in enumerate(threads.map(one, part), start=first):
                if isinstance(decoded, str):
                    skipped.append(decoded)
                else:
                    pixels[len(kept)] = decoded
                    kept.append(position)
                progress.update()
    return torch.from_numpy(pixels[: len(kept)]), kept, skipped
