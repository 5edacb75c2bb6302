"""The features that methods are compared on: what they learn from, and what is searched."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.compare.backbone import Backbone
from trainer.compare.division import MOST_QUERIES, divide
from trainer.data import datasets
from trainer.data.image_sets import spread
from trainer.data.images import ArrayImages, FileImages, Images
from trainer.data.labels import labels_of
from trainer.data.listing import Listing, is_manifest
from trainer.data.skipped import print_skipped
from trainer.errors import TrainerError
from trainer.methods.base import Floats, Lesson

MOST_LEARNT = 100_000  # images with labels, and as many without
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Material:
    """Features (·,E) float32 and labels (·,C) uint8.

    A hit is relevant if it shares a class with the query. ``name``: what the results call it.
    ``images``: some of those that methods learn from.
    """

    name: str
    classes: tuple[str, ...]
    labelled: Floats
    labels: Labels
    unlabelled: Floats
    queries: Floats
    query_labels: Labels
    database: Floats
    database_labels: Labels
    images: Images

    @cached_property
    def digest(self) -> str:
        """A hash that is equal for the same features and labels in the same order."""
        found = hashlib.sha256(repr(self.classes).encode())
        for values in (
            self.labelled, self.labels, self.unlabelled, self.queries, self.query_labels,
            self.database, self.database_labels,
        ):  # fmt: skip
            found.update(np.ascontiguousarray(values).data)
        return found.hexdigest()

    @cached_property
    def chance(self) -> float:
        """The mean share of relevant images, which is about the mAP of a random order."""
        stored = self.database_labels.T.astype(np.float32)
        shares = [(query.astype(np.float32) @ stored > 0).mean() for query in self.query_labels]
        return float(np.mean(shares))

    @property
    def learnt_from(self) -> tuple[int, int]:
        """How many images with labels, and without, a method learns from."""
        return min(len(self.labelled), MOST_LEARNT), min(len(self.unlabelled), MOST_LEARNT)

    def lesson(self, bits: int, seed: int) -> Lesson:
        """Returns what a method learns from; of very many images, evenly spaced ones."""
        some, others = (
            spread(len(features), MOST_LEARNT).numpy()
            for features in (self.labelled, self.unlabelled)
        )
        return Lesson(self.labelled[some], self.labels[some], self.unlabelled[others], bits, seed)


def of_dataset(root: Path, name: str, backbone: Backbone) -> Material:
    """Returns the features of a published data set, divided by a protocol of the paper.

    Of more than MOST_QUERIES queries, as protocol 2 has, evenly spaced ones are asked.
    """
    whole = datasets.load(root, name, backbone.rules)
    print_skipped(whole.skipped)
    images = ArrayImages(whole.pixels)
    features, rows = backbone.features(images, name)
    assert len(rows) == len(whole.pixels)  # pixels in memory can all be read
    labels, split = whole.labels.numpy(), whole.split
    seen = labels[split.labelled.numpy()][:, split.seen.numpy()]
    asked = split.queries[spread(len(split.queries), MOST_QUERIES)]
    return Material(
        name,
        whole.classes,
        features[split.labelled],
        seen,
        features[split.unlabelled],
        features[asked],
        labels[asked],
        features[split.database],
        labels[split.database],
        images.at(split.labelled),
    )


def of_user(source: Path, backbone: Backbone, labels_each: int = 0) -> Material:
    """Returns the features of a folder or a table, divided by ``division.divide``.

    ``labels_each``: how many images of each class keep their labels; 0 for all. The others are
    learnt from without labels. Raises TrainerError.
    """
    division = divide(source)
    classes = division.classes

    def read(listing: Listing, what: str) -> tuple[Floats, Labels]:
        features, rows = backbone.features(FileImages(listing.files, backbone.rules), what)
        return features, labels_of(listing, classes).numpy()[rows]

    learn, labels = read(division.learn, "to learn from")
    if not len(learn):
        raise TrainerError(f"{source}: none of the images to learn from can be read")
    database, database_labels = read(division.database, "database")
    queries, query_labels = read(division.queries, "queries")
    answered = query_labels @ database_labels.any(axis=0).astype(np.int64) > 0
    if not answered.any():
        raise TrainerError(f"{source}: too few images can be read to search for any")
    known = first_of_each(labels, labels_each)
    unlabelled = learn[~known]
    if len(division.unlabelled):
        more, _ = read(division.unlabelled, "unlabelled")
        unlabelled = np.concatenate([unlabelled, more]) if len(more) else unlabelled
    return Material(
        name_of(source),
        classes,
        learn[known],
        labels[known],
        unlabelled,
        queries[answered],
        query_labels[answered],
        database,
        database_labels,
        FileImages(division.learn.files, backbone.rules),
    )


def name_of(source: Path) -> str:
    """Returns what the results call a folder or a table."""
    return source.resolve().stem if is_manifest(source) else source.resolve().name


def first_of_each(labels: Labels, most: int) -> NDArray[np.bool_]:
    """Returns which images are among the first ``most`` of one of their classes; 0 for all."""
    if not most:
        return np.ones(len(labels), dtype=np.bool_)
    counts = np.cumsum(labels, axis=0, dtype=np.int64)
    return np.asarray(((counts <= most) & (labels > 0)).any(axis=1))
