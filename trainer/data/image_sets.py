"""Pictures for training and for evaluation, decoded once, in memory as uint8."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from gpq.pixels.preprocess import Preprocess
from trainer.data import datasets
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
SUM_BATCH = 256  # pictures: a sum takes eight times their bytes meanwhile
LABELLED, UNLABELLED = "labeled", "unlabeled"  # folders to train on
MISSPELT = {"labelled": LABELLED, "unlabelled": UNLABELLED}
PARTS = {"train", "test", "val", "valid", LABELLED, UNLABELLED}  # folders that are no classes


@dataclass(frozen=True)
class TrainingSet:
    """labelled (L,3,S,S) uint8, labels (L,C) uint8, 1 for each class of a picture,
    unlabelled (U,3,S,S) uint8, the labelled ones again where there are no others;
    skipped: a line for each file that was left out; guesses (U,C) float32: how likely
    each class is for an unlabelled picture, where a teacher said so."""

    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    classes: tuple[str, ...]
    skipped: list[str] = field(default_factory=list)
    guesses: Tensor | None = None

    @property
    def all_labelled(self) -> bool:
        """True where the unlabelled pictures are the labelled ones, row by row."""
        return self.unlabelled is self.labelled

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same pictures and labels in the same order; looked for once."""
        digest = hashlib.sha256(repr(self.classes).encode())
        digest.update(self.labels.cpu().numpy().tobytes())
        for pixels in (self.labelled, self.unlabelled):
            for part in torch.split(pixels, SUM_BATCH):
                sums = part.flatten(1).sum(dim=1, dtype=torch.int64)
                digest.update(sums.cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device) -> "TrainingSet":
        """On the device; where it has no room, as it is: batches are moved to it."""
        moved = [self.labelled, self.labels, *([] if self.all_labelled else [self.unlabelled])]
        if not has_room(sum(tensor.nbytes for tensor in moved), device):
            return self
        labelled = self.labelled.to(device)
        return replace(
            self,
            labelled=labelled,
            labels=self.labels.to(device),
            unlabelled=labelled if self.all_labelled else self.unlabelled.to(device),
        )


@dataclass(frozen=True)
class RetrievalSet:
    """queries, database (N,3,S,S) uint8 with labels (N,C) uint8; relevant = a shared class.

    own_rows (Q,) int64: the database rows the queries were taken from, which do not count
    among their hits; absent where queries and database are apart.
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
    """The labelled and unlabelled pictures of ``root``.

    folder: ``labeled/<class>/*`` and ``unlabeled/**``, or a manifest (``listing.manifest``);
    else one of ``datasets``. most: files of either kind that are read, spread over all of a
    folder or a manifest. Raises TrainerError where there is nothing to learn from.
    """
    if dataset != datasets.FOLDER:
        whole = datasets.load(root, dataset, rules)
        split, seen = whole.split, whole.split.seen
        labelled, unlabelled = whole.pixels[split.labelled], whole.pixels[split.unlabelled]
        return TrainingSet(
            labelled,
            whole.labels[split.labelled][:, seen],
            unlabelled if len(unlabelled) else labelled,
            tuple(whole.classes[c] for c in seen),
            whole.skipped,
        )
    if is_manifest(root):
        rows = manifest(root)["train"]
        labelled_files, unlabelled_files, loose = rows.labelled(), rows.unlabelled(), []
    else:
        _require_spelling(root)
        labelled_files = class_folders(root / LABELLED)
        unlabelled_files = images_below(root / UNLABELLED)
        loose = files_outside_classes(root / LABELLED)
    classes = labelled_files.classes
    if len(classes) < 2:
        raise TrainerError(
            f"{root} has labelled pictures of {len(classes)} class(es); learning needs at least "
            "two: labeled/<class>/* in a folder, or the column labels of a manifest"
        )
    if everywhere := frozenset.intersection(*labelled_files.labels):
        raise TrainerError(
            f"{root}: every labelled picture has the label {', '.join(sorted(everywhere))}, so "
            "that all would be right hits of all: leave it out"
        )
    chosen = _spread(labelled_files, most)
    pixels, targets, skipped = _labelled(chosen, classes, rules, "labelled")
    lost = [name for name, count in zip(classes, targets.sum(dim=0), strict=True) if not count]
    if lost and (chosen is labelled_files or not len(pixels)):  # others may not be among them
        raise TrainerError(
            f"{root}: no picture can be read of {', '.join(lost)}; first: {skipped[0]}: mend it, "
            "or leave the label out"
        )
    others = _spread(unlabelled_files, most)
    unlabelled, _, more_skipped = read_images(others.files, rules, "unlabelled")
    if not len(unlabelled):
        unlabelled = pixels
    return TrainingSet(pixels, targets, unlabelled, classes, loose + skipped + more_skipped)


def _require_spelling(root: Path) -> None:
    """Raises TrainerError where pictures would be missing for a letter, or a table its ending."""
    if root.is_file():
        raise TrainerError(f"{root} is a file; a table's name ends in {' or '.join(MANIFESTS)}")
    for name, meant in MISSPELT.items():
        if (root / name).is_dir():
            raise TrainerError(f"{root / name} is not read: rename it {meant}")


def retrieval_set(root: Path, dataset: str, rules: Preprocess) -> RetrievalSet:
    """Queries and database of ``root``.

    One of ``datasets``: its protocol's. A manifest: its splits query and database (or train,
    where it has none). A folder with ``train/<class>/*`` and ``test/<class>/*``: database and
    queries. Where there are no queries apart, in a manifest, in ``labeled/<class>/*`` or in any
    other folder of ``<class>/*``: every labelled picture, or 1,000 spread over them, is searched
    for among all others. Raises TrainerError where a query's class is not in the database, or
    where the folders are parts of something, not classes.
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
                f"{root} has {' and '.join(f'{name}/' for name in listing.classes)}, which are no "
                "classes: give train/<class>/* and test/<class>/* both, or the folder of "
                "<class>/* itself"
            )
        return _read_leave_one_out(root, listing, rules)
    known = set(stored.classes)
    alone = asked.where(not labels & known for labels in asked.labels)
    if alone:
        names = ", ".join(alone.classes) or "none at all"
        raise TrainerError(
            f"{root}: {len(alone)} queries with only classes the database lacks: {names}"
        )
    classes = tuple(sorted(known.union(asked.classes)))
    pixels, labels, skipped = _labelled(stored, classes, rules, "database")
    queries, query_labels, more_skipped = _labelled(asked, classes, rules, "queries")
    return RetrievalSet(
        queries, query_labels, pixels, labels, classes, skipped=skipped + more_skipped
    )


def leave_one_out(
    pixels: Tensor, labels: Tensor, classes: tuple[str, ...], skipped: Sequence[str] = ()
) -> RetrievalSet:
    """Every picture, or 1,000 spread over them, searched for among all others; but those
    that no other picture shares a class with."""
    rows = spread(len(pixels), LEAVE_ONE_OUT_QUERIES)
    shared = (labels[rows].float() @ labels.float().T > 0).sum(dim=1)
    rows = rows[shared > 1]
    queries, wanted = pixels[rows], labels[rows]
    return RetrievalSet(queries, wanted, pixels, labels, classes, rows, skipped=list(skipped))


def spread(count: int, most: int) -> Tensor:
    """At most ``most`` numbers below ``count``, evenly: all classes, where they stand in order."""
    return torch.linspace(0, max(0, count - 1), min(count, most)).round().long()


def _spread(listing: Listing, most: int | None) -> Listing:
    """At most so many of its files."""
    if most is None or len(listing) <= most:
        return listing
    chosen = torch.zeros(len(listing), dtype=torch.bool)
    chosen[spread(len(listing), most)] = True
    return listing.where(chosen.tolist())


def _read_leave_one_out(root: Path, listing: Listing, rules: Preprocess) -> RetrievalSet:
    if not listing.classes:
        raise TrainerError(
            f"{root} has no pictures to evaluate on: expected train/<class>/* and "
            "test/<class>/*, or <class>/*, or a manifest"
        )
    pixels, labels, skipped = _labelled(listing, listing.classes, rules, root.name)
    return leave_one_out(pixels, labels, listing.classes, skipped)


def _labelled(
    listing: Listing, classes: Sequence[str], rules: Preprocess, what: str
) -> tuple[Tensor, Tensor, list[str]]:
    """Pixels (N,3,S,S), labels (N,C) uint8, and what was skipped."""
    pixels, kept, skipped = read_images(listing.files, rules, what)
    position = {name: i for i, name in enumerate(classes)}
    labels = torch.zeros(len(kept), len(classes), dtype=torch.uint8)
    for row, file in enumerate(kept):
        labels[row, [position[name] for name in listing.labels[file]]] = 1
    return pixels, labels, skipped
