"""Sets of images for training and for evaluation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from gpq.pixels.preprocess import Preprocess
from trainer.data import datasets
from trainer.data.images import ArrayImages, FileImages, Images
from trainer.data.labels import labels_of, read_labelled
from trainer.data.listing import (
    MANIFESTS,
    Listing,
    class_folders,
    files_outside_classes,
    images_below,
    is_manifest,
    manifest,
)
from trainer.data.reading import read_images
from trainer.device import has_room
from trainer.errors import TrainerError

LEAVE_ONE_OUT_QUERIES = 1000
SUM_BATCH = 256  # images summed at a time: the sum needs eight times their bytes
LABELLED, UNLABELLED = "labeled", "unlabeled"  # names of folders with training images
MISSPELT = {"labelled": LABELLED, "unlabelled": UNLABELLED}
PARTS = {"train", "test", "val", "valid", LABELLED, UNLABELLED}  # folders that are not classes


@dataclass(frozen=True)
class ListedSet:
    """The images of a training run before any is read.

    labels (L,C) uint8, 1 for each class of a labelled image. ``unlabelled``: None if there are no
    other images. ``whole``: whether all files are listed. ``skipped``: a line for each file that is
    left out.
    """

    root: Path
    labelled: Images
    labels: Tensor
    unlabelled: Images | None
    classes: tuple[str, ...]
    skipped: list[str]
    whole: bool = True

    def require_classes(self, labels: Tensor, skipped: list[str]) -> None:
        """Raises TrainerError if a class has no image that could be read.

        labels (N,C): those of the images that could be read. ``skipped``: why others could not.
        """
        counts = labels.sum(dim=0)
        lost = [name for name, count in zip(self.classes, counts, strict=True) if not count]
        if lost and (self.whole or not len(labels)):  # else the class may have no listed file
            reason = f"the first error is {skipped[0]}: " if skipped else ""
            raise TrainerError(
                f"{self.root}: no image of {', '.join(lost)} can be read; {reason}"
                "repair the files, or leave the label out"
            )


@dataclass(frozen=True)
class Standard:
    """The mean and the deviation (E,) float32 by which features are standardised."""

    mean: Tensor
    deviation: Tensor

    def to(self, device: torch.device) -> "Standard":
        return Standard(self.mean.to(device), self.deviation.to(device))


@dataclass(frozen=True)
class TrainingSet:
    """The images of a training run.

    labelled (L,3,S,S) uint8, or features (L,V,E) float16 of V views of each image, if a part of the
    network is frozen; labels (L,C) uint8, 1 for each class of an image; unlabelled (U,…), of
    the same kind, which is ``labelled`` itself if there are no other images. ``skipped``: a line
    for each file that could not be read. guesses (U,C) float32: the probability of each class for
    each unlabelled image, if a teacher predicted them. ``labelled_images``, ``unlabelled_images``:
    where the pixels are, row by row, if the tensors have features. ``standard``: how these features
    are standardised; None if they are not.
    """

    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    classes: tuple[str, ...]
    skipped: list[str] = field(default_factory=list)
    guesses: Tensor | None = None
    labelled_images: Images | None = None
    unlabelled_images: Images | None = None
    standard: Standard | None = None

    def labelled_pixels(self, rows: Tensor) -> Tensor:
        """Returns labelled images (R,3,S,S) uint8; files are read again."""
        return (self.labelled_images or ArrayImages(self.labelled)).pixels(rows)

    def unlabelled_pixels(self, rows: Tensor) -> Tensor:
        """Returns unlabelled images (R,3,S,S) uint8; files are read again."""
        return (self.unlabelled_images or ArrayImages(self.unlabelled)).pixels(rows)

    @property
    def all_labelled(self) -> bool:
        """True if the unlabelled images are the labelled ones, row by row."""
        return self.unlabelled is self.labelled

    @cached_property
    def fingerprint(self) -> str:
        """A hash that is equal for the same images and labels in the same order."""
        digest = hashlib.sha256(repr(self.classes).encode())
        digest.update(self.labels.cpu().numpy().tobytes())
        for pixels in (self.labelled, self.unlabelled):
            for part in torch.split(pixels, SUM_BATCH):
                sums = part.flatten(1).view(torch.uint8).sum(dim=1, dtype=torch.int64)
                digest.update(sums.cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> "TrainingSet":
        """Returns the images on the device, or ``self`` if the device has no room for them."""
        moved = [self.labelled, self.labels, *([] if self.all_labelled else [self.unlabelled])]
        if not has_room(sum(tensor.nbytes for tensor in moved), device):
            return self
        labelled = self.labelled.to(device)
        return replace(
            self,
            labelled=labelled,
            labels=self.labels.to(device),
            unlabelled=labelled if self.all_labelled else self.unlabelled.to(device),
            standard=self.standard and self.standard.to(device),
        )


@dataclass(frozen=True)
class RetrievalSet:
    """Queries and the database they are searched in; a hit is relevant if it shares a class.

    queries and database (N,3,S,S) uint8, their labels (N,C) uint8. own_rows (Q,) int64: the
    database rows of the queries themselves, which do not count as hits; None if the queries are
    not in the database.
    """

    queries: Tensor
    query_labels: Tensor
    database: Tensor
    database_labels: Tensor
    classes: tuple[str, ...]
    own_rows: Tensor | None = None
    skipped: list[str] = field(default_factory=list)


def training_set(
    root: Path, dataset: str, rules: Preprocess, most: int | None = None
) -> TrainingSet:
    """Reads the labelled and unlabelled images of ``root`` into memory.

    The arguments and errors are those of ``listed``.
    """
    found = listed(root, dataset, rules, most)
    pixels, rows, skipped = _read(found.labelled, rules, "labelled")
    labels = found.labels[rows]
    found.require_classes(labels, skipped)
    unlabelled = pixels
    more_skipped: list[str] = []
    if found.unlabelled:
        others, _, more_skipped = _read(found.unlabelled, rules, "unlabelled")
        unlabelled = others if len(others) else pixels
    skipped = found.skipped + skipped + more_skipped
    return TrainingSet(pixels, labels, unlabelled, found.classes, skipped)


def _read(images: Images, rules: Preprocess, what: str) -> tuple[Tensor, Tensor | slice, list[str]]:
    """Returns pixels (N,3,S,S), the rows that could be read, and a line for each other file."""
    if isinstance(images, ArrayImages):
        return images.pixels(torch.arange(len(images))), slice(None), []
    assert isinstance(images, FileImages)
    pixels, kept, skipped = read_images(images.files, rules, what)
    return pixels, torch.tensor(kept, dtype=torch.int64), skipped


def listed(root: Path, dataset: str, rules: Preprocess, most: int | None = None) -> ListedSet:
    """Lists the labelled and unlabelled images of ``root``; reads them only if it must.

    ``dataset``: ``folder`` for a folder with ``labeled/<class>/*`` and ``unlabeled/**`` or a
    manifest (``listing.manifest``), else one of ``datasets``, which is read. ``most``: maximum
    number of files of either kind of a folder or a manifest, evenly spaced over all of its files.
    Raises TrainerError if the images cannot be learnt from.
    """
    if dataset != datasets.FOLDER:
        whole = datasets.load(root, dataset, rules)
        split, seen = whole.split, whole.split.seen
        return ListedSet(
            root,
            ArrayImages(whole.pixels, split.labelled),
            whole.labels[split.labelled][:, seen],
            ArrayImages(whole.pixels, split.unlabelled) if len(split.unlabelled) else None,
            tuple(whole.classes[c] for c in seen),
            whole.skipped,
            whole=False,
        )
    if is_manifest(root):
        rows = manifest(root)["train"]
        labelled_files, unlabelled_files, outside = rows.labelled(), rows.unlabelled(), []
    else:
        _require_spelling(root)
        labelled_files = class_folders(root / LABELLED)
        unlabelled_files = images_below(root / UNLABELLED)
        outside = files_outside_classes(root / LABELLED)
    classes = labelled_files.classes
    if len(classes) < 2:
        raise TrainerError(
            f"{root} has labelled images of {len(classes)} class(es); learning needs at least "
            "two: labeled/<class>/* in a folder, or the column labels in a manifest"
        )
    if everywhere := frozenset.intersection(*labelled_files.labels):
        raise TrainerError(
            f"{root}: every labelled image has the label {', '.join(sorted(everywhere))}, which "
            "would make every hit relevant: leave that label out"
        )
    chosen, others = _spread(labelled_files, most), _spread(unlabelled_files, most)
    return ListedSet(
        root,
        FileImages(chosen.files, rules),
        labels_of(chosen, classes),
        FileImages(others.files, rules) if others else None,
        classes,
        outside,
        whole=chosen is labelled_files,
    )


def _require_spelling(root: Path) -> None:
    """Raises TrainerError for a misspelt folder name or a file that is not a known table."""
    if root.is_file():
        raise TrainerError(
            f"{root} is neither a folder nor a table: the name of a table ends in "
            f"{' or '.join(MANIFESTS)}"
        )
    for name, meant in MISSPELT.items():
        if (root / name).is_dir():
            raise TrainerError(f"{root / name} would be ignored: rename it to {meant}")


def retrieval_set(root: Path, dataset: str, rules: Preprocess) -> RetrievalSet:
    """Reads the queries and the database of ``root``.

    One of ``datasets`` is divided by its protocol. In a manifest the splits query and database
    (or train, if it has no database) count. A folder may have ``train/<class>/*`` as database and
    ``test/<class>/*`` as queries. Without separate queries (in a manifest, in
    ``labeled/<class>/*`` or in any other folder of ``<class>/*``), every labelled image, or 1,000
    of them evenly spaced, is searched among all others. Raises TrainerError if a query shares no
    class with the database, or if the folders have names of splits rather than of classes.
    """
    if dataset != datasets.FOLDER:
        whole = datasets.load(root, dataset, rules)
        queries, database = whole.split.queries, whole.split.database
        return RetrievalSet(
            whole.pixels[queries],
            whole.labels[queries],
            whole.pixels[database],
            whole.labels[database],
            whole.classes,
            skipped=whole.skipped,
        )
    if is_manifest(root):
        splits = manifest(root)
        stored, asked = splits["database"] or splits["train"].labelled(), splits["query"]
        if not asked:
            return _read_leave_one_out(root, stored.labelled(), rules)
    elif (root / "train").is_dir() and (root / "test").is_dir():
        stored, asked = class_folders(root / "train"), class_folders(root / "test")
    elif (root / LABELLED).is_dir():
        return _read_leave_one_out(root, class_folders(root / LABELLED), rules)
    else:
        listing = class_folders(root)
        if listing and PARTS.issuperset(listing.classes):
            raise TrainerError(
                f"{root} has {' and '.join(f'{name}/' for name in listing.classes)}, which are not "
                "classes: give a folder with both train/<class>/* and test/<class>/*, or the "
                "folder of <class>/* itself"
            )
        return _read_leave_one_out(root, listing, rules)
    known = set(stored.classes)
    foreign = asked.where(not labels & known for labels in asked.labels)
    if foreign:
        names = ", ".join(foreign.classes) or "none at all"
        raise TrainerError(
            f"{root}: {len(foreign)} queries have no class of the database; their classes: {names}"
        )
    classes = tuple(sorted(known.union(asked.classes)))
    pixels, labels, skipped = read_labelled(stored, classes, rules, "database")
    queries, query_labels, more_skipped = read_labelled(asked, classes, rules, "queries")
    return RetrievalSet(
        queries, query_labels, pixels, labels, classes, skipped=skipped + more_skipped
    )


def leave_one_out(
    pixels: Tensor, labels: Tensor, classes: tuple[str, ...], skipped: Sequence[str] = ()
) -> RetrievalSet:
    """Makes every image, or 1,000 of them evenly spaced, a query that is searched among all others.

    An image that shares no class with another image is not a query.
    """
    rows = spread(len(pixels), LEAVE_ONE_OUT_QUERIES)
    shared = (labels[rows].float() @ labels.float().T > 0).sum(dim=1)
    rows = rows[shared > 1]
    queries, wanted = pixels[rows], labels[rows]
    return RetrievalSet(queries, wanted, pixels, labels, classes, rows, skipped=list(skipped))


def spread(count: int, most: int) -> Tensor:
    """Returns at most ``most`` evenly spaced numbers below ``count``.

    As rows of images in the order of their classes, they cover all classes.
    """
    return torch.linspace(0, max(0, count - 1), min(count, most)).round().long()


def _spread(listing: Listing, most: int | None) -> Listing:
    """Returns at most ``most`` of the files, evenly spaced."""
    if most is None or len(listing) <= most:
        return listing
    chosen = torch.zeros(len(listing), dtype=torch.bool)
    chosen[spread(len(listing), most)] = True
    return listing.where(chosen.tolist())


def _read_leave_one_out(root: Path, listing: Listing, rules: Preprocess) -> RetrievalSet:
    if not listing.classes:
        raise TrainerError(
            f"{root} has no images to evaluate on: expected train/<class>/* and "
            "test/<class>/*, or <class>/*, or a manifest"
        )
    pixels, labels, skipped = read_labelled(listing, listing.classes, rules, root.name)
    return leave_one_out(pixels, labels, listing.classes, skipped)
