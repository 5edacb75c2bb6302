"""The features that methods are compared on: what they learn from, and what is searched."""

import hashlib
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gpq.engine import torch_architectures
from gpq.engine.torch_architectures import DEFAULT_WIDTHS
from gpq.pixels.preprocess import Preprocess
from trainer.components import pretrained
from trainer.config import Architecture
from trainer.data import datasets
from trainer.data.image_sets import LABELLED, MISSPELT, UNLABELLED
from trainer.data.image_sets import PARTS as SPLITS
from trainer.data.images import ArrayImages, FileImages, Images
from trainer.data.labels import labels_of
from trainer.data.listing import Listing, class_folders, images_below
from trainer.data.skipped import print_skipped
from trainer.errors import TrainerError
from trainer.frozen.cache import FeatureCache
from trainer.frozen.features import ViewFeatures
from trainer.frozen.part import FrozenNetwork
from trainer.methods.base import Floats, Lesson
from trainer.options import require_fitting_size, rules_for

PARTS = SPLITS | MISSPELT.keys()  # folders that are no classes
QUERY_SHARE, MOST_QUERIES = 0.2, 1000  # of a folder without queries of its own
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Material:
    """Features (·,E) float32 and labels (·,C) uint8.

    A hit is relevant if it shares a class with the query. ``name``: what the results call it.
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

    @cached_property
    def digest(self) -> str:
        """A hash that is equal for the same features and labels in the same order."""
        found = hashlib.sha256(repr(self.classes).encode())
        for values in (
            self.labelled, self.labels, self.unlabelled, self.queries, self.query_labels,
            self.database, self.database_labels,
        ):  # fmt: skip
            found.update(values.tobytes())
        return found.hexdigest()

    def lesson(self, bits: int, seed: int) -> Lesson:
        return Lesson(self.labelled, self.labels, self.unlabelled, bits, seed)


class Backbone:
    """A published network without its last layer, which makes features of images.

    ``place``: folder of the cache of features, of at most ``limit`` bytes. Raises TrainerError if
    there are no published weights for the network ``name``, or ``size`` is too small for it.
    """

    def __init__(self, name: str, size: int, device: str, place: Path, limit: int) -> None:
        built = Architecture(name, DEFAULT_WIDTHS.get(name, 0), size)
        require_fitting_size(built)
        self.name, self.size = name, size
        self.rules: Preprocess = rules_for(name, size)
        network = torch_architectures.build(name, 1, built.width).eval()
        pretrained.load_pretrained(network, name)
        self._part = FrozenNetwork(network, None, built, self.rules)
        self._device, self._place, self._limit = device, place, limit

    def features(self, images: Images, what: str) -> tuple[Floats, Tensor]:
        """Returns features (N,E) of the images that can be read, and their rows."""
        with (
            closing(FeatureCache(self._place, self._limit)) as cache,
            self._part.running(self._device) as running,
        ):
            found = ViewFeatures(running, cache, seed=0).of_images(images, 1, what)
        print_skipped(found.skipped)
        return found.values[:, 0].float().numpy(), found.rows


def of_dataset(root: Path, name: str, backbone: Backbone) -> Material:
    """Returns the features of a published data set, divided by a protocol of the paper."""
    whole = datasets.load(root, name, backbone.rules)
    print_skipped(whole.skipped)
    features, rows = backbone.features(ArrayImages(whole.pixels), name)
    assert len(rows) == len(whole.pixels)  # pixels in memory can all be read
    labels, split = whole.labels.numpy(), whole.split
    seen = labels[split.labelled.numpy()][:, split.seen.numpy()]
    return Material(
        name,
        whole.classes,
        features[split.labelled],
        seen,
        features[split.unlabelled],
        features[split.queries],
        labels[split.queries],
        features[split.database],
        labels[split.database],
    )


def of_folder(root: Path, backbone: Backbone, labels_each: int = 0) -> Material:
    """Returns the features of a folder of the user's.

    ``train/<class>/*`` is the database and ``test/<class>/*`` the queries. A folder of
    ``<class>/*`` or ``labeled/<class>/*`` is divided: every fifth image is a query, 1,000 in all at
    most, and the others are the database. Methods learn from the database and its labels.
    ``labels_each``: how many images of each class keep their labels; 0 for all. The others, and
    those of ``unlabeled/**``, are learnt from without labels. Raises TrainerError.
    """
    if (root / "train").is_dir() and (root / "test").is_dir():
        stored, asked = class_folders(root / "train"), class_folders(root / "test")
    else:
        of_classes = root / LABELLED if (root / LABELLED).is_dir() else root
        listing = class_folders(of_classes)
        listing = listing.where(labels != {UNLABELLED} for labels in listing.labels)
        if parts := PARTS & set(listing.classes):
            raise TrainerError(
                f"{root} has {' and '.join(f'{name}/' for name in sorted(parts))}, which are no "
                "classes: give <class>/*, or both train/<class>/* and test/<class>/*"
            )
        stored, asked = divided(listing)
    classes = stored.classes
    if len(classes) < 2:
        raise TrainerError(f"{root} has images of {len(classes)} class(es); give at least two")
    foreign = sorted(set(asked.classes) - set(classes))
    if foreign:
        raise TrainerError(f"{root}: test/ has classes that train/ lacks: {', '.join(foreign)}")

    def read(listing: Listing, what: str) -> tuple[Floats, Labels]:
        features, rows = backbone.features(FileImages(listing.files, backbone.rules), what)
        return features, labels_of(listing, classes).numpy()[rows]

    database, database_labels = read(stored, "database")
    queries, query_labels = read(asked, "queries")
    if not len(database) or not len(queries):
        raise TrainerError(f"{root}: too few images can be read to search for any")
    known = first_of_each(database_labels, labels_each)
    unlabelled = database[~known]
    others = images_below(root / UNLABELLED)
    if others:
        more, _ = backbone.features(FileImages(others.files, backbone.rules), "unlabelled")
        unlabelled = np.concatenate([unlabelled, more])
    return Material(
        root.resolve().name,
        classes,
        database[known],
        database_labels[known],
        unlabelled,
        queries,
        query_labels,
        database,
        database_labels,
    )


def divided(listing: Listing) -> tuple[Listing, Listing]:
    """Returns the database and the queries, which are evenly spaced over the files. The first
    image of a class is never a query."""
    count = len(listing)
    queries = min(MOST_QUERIES, int(QUERY_SHARE * count))
    seen: set[str] = set()
    chosen: list[bool] = []
    for number, labels in enumerate(listing.labels, 1):
        is_next = number * queries // max(1, count) > (number - 1) * queries // max(1, count)
        chosen.append(is_next and labels <= seen)
        seen |= labels
    return listing.where([not query for query in chosen]), listing.where(chosen)


def first_of_each(labels: Labels, most: int) -> NDArray[np.bool_]:
    """Returns which images are among the first ``most`` of one of their classes; 0 for all."""
    if not most:
        return np.ones(len(labels), dtype=np.bool_)
    counts = np.cumsum(labels, axis=0, dtype=np.int64)
    return np.asarray(((counts <= most) & (labels > 0)).any(axis=1))
