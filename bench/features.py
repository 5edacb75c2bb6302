"""Float features of the images in folders, by the frozen layers of a model."""

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.components.source import Source
from trainer.config import Architecture
from trainer.data.images import FileImages
from trainer.data.listing import images_below
from trainer.frozen.cache import GB, FeatureCache
from trainer.frozen.cache import folder as cache_folder
from trainer.frozen.features import ViewFeatures
from trainer.frozen.part import FrozenNetwork
from trainer.options import rules_for
from trainer.quantise.command import Folder

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
CACHE = 10 * GB


class Features:
    """Computes the float features of images, or takes them from the trainer's feature cache."""

    def __init__(self, source: Source) -> None:
        network = source.artifact.network
        self.name, self.width, self.size = network["name"], network["width"], source.size
        self.network = source.network

    def part(self, size: int) -> FrozenNetwork:
        """Returns the frozen layers for images of ``size`` pixels a side."""
        built = Architecture(self.name, self.width, size)
        return FrozenNetwork(self.network, None, built, rules_for(self.name, size))

    def of_files(self, files: list[Path], size: int) -> tuple[Floats, Ints]:
        """Returns the features (N,E) of the files that can be read, and their rows (N,)."""
        part = self.part(size)
        with (
            closing(FeatureCache(cache_folder(), CACHE)) as cache,
            part.running("cpu") as running,
        ):
            compute = ViewFeatures(running, cache, 0)
            found = compute.of_images(FileImages(files, part.rules), 1, "images")
        return found.values[:, 0].float().numpy(), found.rows.numpy()

    def of_folder(self, folder: Folder, most: int | None = None) -> Floats:
        """Returns the features (N,E) of the images below a folder, or of about ``most`` of them."""
        files = list(images_below(folder.path).files)
        step = max(1, len(files) // most) if most else 1
        return self.of_files(files[::step], folder.size)[0]
