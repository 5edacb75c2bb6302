"""Pictures for training and evaluation, decoded once into memory as uint8.

Everything goes through ``gpq.decode`` and ``gpq.preprocess``, as in the service. A picture takes
3 · size² bytes: 60,000 at 32×32 are 184 MB, a million at 64×64 are 12 GB.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from gpq.decode import load
from gpq.errors import ImageError
from gpq.preprocess import Preprocess
from trainer.errors import TrainerError

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
PROTOCOL_1_QUERY_EVERY = 60
PROTOCOL_1_LABELLED_PER_CLASS = 500


@dataclass(frozen=True)
class TrainingSet:
    """labelled (L,3,S,S) uint8, labels (L,) int64 into classes, unlabelled (U,3,S,S) uint8."""

    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    classes: tuple[str, ...]
    skipped: list[str] = field(default_factory=list)

    def to(self, device: torch.device) -> "TrainingSet":
        labelled, labels = self.labelled.to(device), self.labels.to(device)
        return TrainingSet(labelled, labels, self.unlabelled.to(device), self.classes, self.skipped)


@dataclass(frozen=True)
class RetrievalSet:
    """queries, database (N,3,S,S) uint8 with labels (N,) int64; relevant = same label."""

    queries: Tensor
    query_labels: Tensor
    database: Tensor
    database_labels: Tensor
    skipped: list[str] = field(default_factory=list)


def training_set(root: Path, dataset: str, rules: Preprocess) -> TrainingSet:
    """The labelled and unlabelled pictures of ``root``.

    folder: ``labeled/<class>/*`` and ``unlabeled/**``; cifar10: protocol 1.
    Raises TrainerError where there is nothing to learn from.
    """
    if dataset == "cifar10":
        pixels, labels = _cifar10(root, rules)
        _, labelled, unlabelled = protocol_1(labels)
        return TrainingSet(pixels[labelled], labels[labelled], pixels[unlabelled], CIFAR10_CLASSES)
    skipped: list[str] = []
    pixels, labels, classes = _class_folders(root / "labeled", rules, skipped)
    if len(classes) < 2:
        raise TrainerError(
            f"{root / 'labeled'} has {len(classes)} class folder(s) with pictures; "
            "learning needs at least two, each labeled/<class>/*"
        )
    files = _files(root / "unlabeled") if (root / "unlabeled").is_dir() else []
    unlabelled_pixels, _ = _read(files, rules, skipped, "unlabeled")
    if not len(unlabelled_pixels):
        unlabelled_pixels = pixels
    return TrainingSet(pixels, labels, unlabelled_pixels, tuple(classes), skipped)


def retrieval_set(root: Path, dataset: str, rules: Preprocess) -> RetrievalSet:
    """Queries and database of ``root``.

    cifar10: protocol 1. folder: queries ``test/<class>/*``, database ``train/<class>/*``.
    """
    if dataset == "cifar10":
        pixels, labels = _cifar10(root, rules)
        queries, _, database = protocol_1(labels)
        return RetrievalSet(pixels[queries], labels[queries], pixels[database], labels[database])
    skipped: list[str] = []
    database, database_labels, classes = _class_folders(root / "train", rules, skipped)
    queries, local_labels, query_classes = _class_folders(root / "test", rules, skipped)
    position = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in query_classes if name not in position]
    if unknown:
        raise TrainerError(f"{root / 'test'} has classes that train/ lacks: {', '.join(unknown)}")
    to_database = torch.tensor([position[name] for name in query_classes])
    return RetrievalSet(queries, to_database[local_labels], database, database_labels, skipped)


def protocol_1(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers (queries, labelled, unlabelled) of the paper's protocol 1.

    labels (N,) in file order, train before test. Stable sort by class; every 60th
    is a query, the first 500 left of each class are labelled, the rest unlabelled.
    """
    order = torch.argsort(labels, stable=True)
    is_query = torch.arange(len(order)) % PROTOCOL_1_QUERY_EVERY == 0
    rest = order[~is_query]
    labelled_parts, unlabelled_parts = [], []
    for label in range(int(labels.max()) + 1):
        rows = rest[labels[rest] == label]
        labelled_parts.append(rows[:PROTOCOL_1_LABELLED_PER_CLASS])
        unlabelled_parts.append(rows[PROTOCOL_1_LABELLED_PER_CLASS:])
    return order[is_query], torch.cat(labelled_parts), torch.cat(unlabelled_parts)


def _cifar10(root: Path, rules: Preprocess) -> tuple[Tensor, Tensor]:
    """All 60,000, train before test: the JPEG tree or torchvision's python batches."""
    if (root / "cifar-10-batches-py").is_dir():
        return _cifar10_batches(root, rules)
    if not (root / "train").is_dir() or not (root / "test").is_dir():
        raise TrainerError(
            f"{root} is no CIFAR-10: expected train/<class>/*.jpg and test/<class>/*.jpg, "
            "or torchvision's cifar-10-batches-py"
        )
    parts: list[tuple[Tensor, Tensor]] = []
    for part in ("train", "test"):
        skipped: list[str] = []
        pixels, labels, classes = _class_folders(root / part, rules, skipped)
        if tuple(classes) != CIFAR10_CLASSES:
            raise TrainerError(f"{root / part} has classes {classes}, not those of CIFAR-10")
        if skipped:
            raise TrainerError(f"{root / part}: {len(skipped)} unreadable, first: {skipped[0]}")
        parts.append((pixels, labels))
    return torch.cat([p for p, _ in parts]), torch.cat([t for _, t in parts])


def _cifar10_batches(root: Path, rules: Preprocess) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import CIFAR10  # slow to import, and only needed here

    pixels, labels = [], []
    for train in (True, False):
        try:
            part = CIFAR10(str(root), train=train)
        except RuntimeError as error:  # a file is missing or has another checksum
            raise TrainerError(f"{root / CIFAR10.base_folder}: {error}") from error
        pixels += [rules.pixels(Image.fromarray(array)) for array in part.data]
        labels += part.targets
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def _class_folders(
    root: Path, rules: Preprocess, skipped: list[str]
) -> tuple[Tensor, Tensor, list[str]]:
    """<class>/* below ``root``, classes and files in name order."""
    if not root.is_dir():
        raise TrainerError(f"{root} is not a folder; expected {root}/<class>/<pictures>")
    files: list[Path] = []
    labels: list[int] = []
    classes: list[str] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        inside = _files(folder)
        if inside:
            labels += [len(classes)] * len(inside)
            classes.append(folder.name)
            files += inside
    pixels, kept = _read(files, rules, skipped, root.name)
    kept_labels = torch.tensor(labels, dtype=torch.int64)[kept]
    lost = sorted(set(range(len(classes))) - set(kept_labels.tolist()))
    if lost:
        names = ", ".join(classes[label] for label in lost)
        raise TrainerError(f"{root}: no picture can be read in {names}; first: {skipped[0]}")
    return pixels, kept_labels, classes


def _files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))


def _read(
    files: Sequence[Path], rules: Preprocess, skipped: list[str], what: str
) -> tuple[Tensor, Tensor]:
    """(N,3,S,S) uint8 of the files that decode, and their positions in ``files``."""
    pixels = np.empty((len(files), 3, rules.size, rules.size), dtype=np.uint8)
    kept: list[int] = []
    for position, path in enumerate(tqdm(files, desc=f"reading {what}", leave=False)):
        try:
            image = load(path.read_bytes())
        except (ImageError, OSError) as error:
            skipped.append(f"{path}: {error}")
            continue
        pixels[len(kept)] = rules.pixels(image).transpose(2, 0, 1)
        kept.append(position)
    return torch.from_numpy(pixels[: len(kept)]), torch.tensor(kept, dtype=torch.int64)
