"""Computes the features of images once: of each view, in chunks, with a cache on the disk."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.data.image_sets import ListedSet, Standard, TrainingSet
from trainer.data.images import Images, rows_where
from trainer.errors import TrainerError
from trainer.evaluation.holdout import HeldOut, chosen_rows
from trainer.frozen.cache import FeatureCache
from trainer.frozen.part import Running
from trainer.frozen.views import digest_of, key_of, view_of

BATCH = 32  # images; always as many, so that features do not depend on what is computed beside them
STORED = np.dtype("<f2")
LARGEST = float(np.finfo(STORED).max)
LEAST_DEVIATION = 0.01  # of the mean one, so that nearly constant features are not blown up
SUMMED = 4096  # rows summed at a time, in float64


@dataclass(frozen=True)
class Features:
    """Features (N,V,E) float16 of the images that could be read.

    ``rows``: their rows among all images. ``skipped``: a line for each other file.
    """

    values: Tensor
    rows: Tensor
    skipped: list[str]


class ViewFeatures:
    """Computes features of views with a frozen part, unless the cache has them.

    ``seed``: of the views that are augmentations. Values are float16, so that it does not matter
    whether they come from the cache.
    """

    def __init__(self, part: Running, cache: FeatureCache, seed: int) -> None:
        self.part, self.cache, self.seed = part, cache, seed
        self.computed = 0  # views, not counting those from the cache

    def missing(self, pixels: NDArray[np.uint8], views: int) -> float:
        """Returns the share of the views of some images that the cache does not have."""
        wanted = self._wanted(pixels, views)
        return 1 - len(self.cache.get(list(wanted))) / len(wanted) if wanted else 0.0

    def of_pixels(self, pixels: NDArray[np.uint8], views: int) -> NDArray[np.float16]:
        """Images (B,3,S,S) uint8 -> (B,V,E) float16 of their first ``views`` views."""
        digests = [digest_of(image) for image in pixels]
        keys = [
            [key_of(self.part.identity, digest, view, self.seed) for view in range(views)]
            for digest in digests
        ]
        found = self.cache.get([key for of_image in keys for key in of_image])
        absent = {  # by key: equal images are computed once
            key: (row, view)
            for row, of_image in enumerate(keys)
            for view, key in enumerate(of_image)
            if key not in found
        }
        made: dict[bytes, bytes] = {}
        for part in _batches(list(absent.items())):
            images = np.zeros((BATCH, *pixels.shape[1:]), np.uint8)
            for place, (_, (row, view)) in enumerate(part):
                images[place] = view_of(pixels[row], digests[row], view, self.seed)
            values = self.part.compute(images)[: len(part)]
            stored = np.clip(values, -LARGEST, LARGEST).astype(STORED)
            made |= {key: row.tobytes() for (key, _), row in zip(part, stored, strict=True)}
        self.computed += len(made)
        if made:
            self.cache.put(made)
        found |= made
        rows = [np.frombuffer(found[key], STORED) for of_image in keys for key in of_image]
        return np.stack(rows).reshape(len(pixels), views, -1).astype(np.float16, copy=False)

    def of_images(self, images: Images, views: int, what: str) -> Features:
        """Reads images a few at a time and computes the features of their first ``views`` views.

        ``what``: a name for the progress bar. Raises TrainerError if memory does not suffice.
        """
        values = np.empty((0, views, 0), np.float16)
        rows: list[int] = []
        skipped: list[str] = []
        for chunk in images.chunks(what):
            skipped += chunk.skipped
            if not chunk.rows:
                continue
            found = self.of_pixels(chunk.pixels.numpy(), views)
            if not rows:
                values = _room(len(images), views, found.shape[2])
            values[len(rows) : len(rows) + len(found)] = found
            rows += chunk.rows
        kept = torch.tensor(rows, dtype=torch.int64)
        return Features(torch.from_numpy(values[: len(rows)]), kept, skipped)

    def _wanted(self, pixels: NDArray[np.uint8], views: int) -> set[bytes]:
        digests = map(digest_of, pixels)
        return {
            key_of(self.part.identity, digest, view, self.seed)
            for digest in digests
            for view in range(views)
        }


def features_of(
    listed: ListedSet,
    compute: ViewFeatures,
    views: int,
    share: float,
    seed: int,
    *,
    pooled: bool,
    alike: bool = False,
) -> tuple[TrainingSet, HeldOut | None]:
    """Returns the features of all images, and those of the ``share`` that is held out.

    Held-out images have one view only. ``pooled``: whether to standardise the features. ``alike``:
    by one deviation, the root mean square one, which keeps angles between centred features.
    """
    chosen = chosen_rows(listed.labels, share, seed)
    rest, held = rows_where(~chosen), rows_where(chosen)
    learnt, labels = compute.of_images(listed.labelled.at(rest), views, "labelled"), listed.labels
    checked = compute.of_images(listed.labelled.at(held), 1, "held-out") if len(held) else None
    skipped = [*learnt.skipped, *(checked.skipped if checked else [])]
    read = rest[learnt.rows]
    of_held = held[checked.rows] if checked else held
    listed.require_classes(labels[torch.cat([read, of_held])], skipped)
    others, other_images = learnt, None
    if listed.unlabelled:
        found = compute.of_images(listed.unlabelled, views, "unlabelled")
        skipped += found.skipped
        if len(found.rows):
            others, other_images = found, listed.unlabelled.at(found.rows)
    labelled_images = listed.labelled.at(read)
    data = TrainingSet(
        learnt.values,
        labels[read],
        others.values,
        listed.classes,
        listed.skipped + skipped,
        labelled_images=labelled_images,
        unlabelled_images=other_images or labelled_images,
        standard=standard_of(others.values, alike=alike) if pooled else None,
    )
    if checked is None or not len(of_held):
        return data, None
    return data, HeldOut(checked.values, labels[of_held], listed.labelled.at(of_held))


def standard_of(values: Tensor, *, alike: bool = False) -> Standard:
    """Returns the mean and the deviation of features (N,V,E).

    ``alike``: all features get the root mean square deviation.
    """
    flat = values.flatten(0, 1)
    parts = torch.split(flat, SUMMED)
    zero = torch.zeros(flat.shape[1], dtype=torch.float64)
    mean = sum((part.double().sum(dim=0) for part in parts), zero) / len(flat)
    squares = sum((((part.double() - mean) ** 2).sum(dim=0) for part in parts), zero)
    variance = squares / max(1, len(flat) - 1)
    deviation = (variance.mean().expand_as(variance) if alike else variance).sqrt()
    least = max(LEAST_DEVIATION * float(deviation.mean()), 1e-6)
    return Standard(mean.float(), deviation.clamp(min=least).float())


def _room(images: int, views: int, dimension: int) -> NDArray[np.float16]:
    try:
        return np.empty((images, views, dimension), np.float16)
    except MemoryError as error:
        needed = images * views * dimension * STORED.itemsize / 2**30
        raise TrainerError(
            f"the features of {images} images need {needed:.1f} GiB of memory: give fewer --views "
            "or images, or --freeze all, whose features are smallest"
        ) from error


def _batches(
    items: list[tuple[bytes, tuple[int, int]]],
) -> Iterator[list[tuple[bytes, tuple[int, int]]]]:
    for first in range(0, len(items), BATCH):
        yield items[first : first + BATCH]
