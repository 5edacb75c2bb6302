"""Takes evenly spaced images of a folder."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpq.pixels.preprocess import Preprocess
from trainer.data.image_sets import spread
from trainer.data.images import FileImages
from trainer.data.listing import images_below
from trainer.errors import TrainerError


def sample(folder: Path, most: int, rules: Preprocess) -> FileImages:
    """Returns at most ``most`` of the files below a folder. Raises TrainerError if it has none."""
    files = images_below(folder).files
    if not files:
        raise TrainerError(f"there are no files below {folder}")
    return FileImages([files[row] for row in spread(len(files), most).tolist()], rules)


def sample_pixels(folder: Path, most: int, rules: Preprocess) -> NDArray[np.uint8]:
    """Returns the pixels (N,3,S,S) of those of the sample that can be read.

    Raises TrainerError if there are none.
    """
    chunks = sample(folder, most, rules).chunks("examples")
    parts = [chunk.pixels.numpy() for chunk in chunks if chunk.rows]
    if not parts:
        raise TrainerError(f"no file below {folder} is an image that can be read")
    return np.concatenate(parts)
