"""Unpacks the data packs in the folder GPQ_DATA into folders that the trainer reads."""

import os
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

CIFAR10 = "cifar10-jpeg.tar.xz"
TRAINING_PACKS = ("a", "b", "c", "d")  # of Tiny ImageNet
RETRIEVAL_PACK = "e"  # holds the database and the queries of the evaluation


def cifar10(out: Path) -> Path | None:
    """Returns the folder of CIFAR-10 with train/ and test/, or None if GPQ_DATA lacks it.

    ``out``: the pack is unpacked below this folder. GPQ_DATA may also be the unpacked folder.
    """
    given = Path(os.environ["GPQ_DATA"])
    if (given / "train").is_dir():
        return given
    unpacked = out / "data" / "cifar10"
    if not (unpacked / "test").is_dir():
        if not (given / CIFAR10).is_file():
            return None
        with tarfile.open(given / CIFAR10) as archive:
            archive.extractall(unpacked, filter="data")
    return unpacked


def tinyimagenet(out: Path, part: str) -> Path | None:
    """Returns a folder of Tiny ImageNet below ``out``, or None if a pack is missing in GPQ_DATA.

    ``part`` is one of three. "all": labeled/ has the images of all training packs. "100":
    labeled/ has those of the first pack, 100 per class, and unlabeled/ the others. "search":
    train/ has the database and test/ the queries of the evaluation.
    """
    unpacked = out / "data" / f"tinyimagenet-{part}"
    done = unpacked / ".done"
    if done.is_file():
        return unpacked
    packs = (RETRIEVAL_PACK,) if part == "search" else TRAINING_PACKS
    files = [Path(os.environ["GPQ_DATA"]) / f"tinyimagenet64-{pack}.zip" for pack in packs]
    if not all(file.is_file() for file in files):
        return None
    for pack, file in zip(packs, files, strict=True):
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                path = PurePosixPath(member.filename)
                if member.is_dir() or path.suffix != ".webp":
                    continue
                target = unpacked / _target(part, pack, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
    done.touch()
    return unpacked


def _target(part: str, pack: str, path: PurePosixPath) -> Path:
    """Returns where a pack's file goes; ``path`` ends in <train or val>/<class>/<file>."""
    split, name = path.parts[-3], path.parts[-2]
    if part == "search":
        return Path("test" if split == "val" else "train", name, path.name)
    if part == "100" and pack != TRAINING_PACKS[0]:
        return Path("unlabeled", f"{pack}-{name}-{path.name}")
    return Path("labeled", name, f"{pack}-{path.name}")
