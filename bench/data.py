"""The data packs of GPQ_DATA, unpacked in the layout of the trainer."""

import os
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

CIFAR10 = "cifar10-jpeg.tar.xz"
LEARNT = ("a", "b", "c", "d")  # packs of Tiny ImageNet that are learnt from
SEARCHED = "e"  # the pack that is searched: database and queries


def cifar10(out: Path) -> Path | None:
    """The folder with train/ and test/; None where there is neither it nor its pack."""
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
    """all: labeled/ of four packs. 100: labeled/ of the first (100 a class), unlabeled/ of the
    others. search: train/ and test/, the database and the queries. None where a pack is missing.
    """
    unpacked = out / "data" / f"tinyimagenet-{part}"
    done = unpacked / ".done"
    if done.is_file():
        return unpacked
    packs = (SEARCHED,) if part == "search" else LEARNT
    files = [Path(os.environ["GPQ_DATA"]) / f"tinyimagenet64-{pack}.zip" for pack in packs]
    if not all(file.is_file() for file in files):
        return None
    for pack, file in zip(packs, files, strict=True):
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                place = PurePosixPath(member.filename)
                if member.is_dir() or place.suffix != ".webp":
                    continue
                target = unpacked / _place(part, pack, place)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
    done.touch()
    return unpacked


def _place(part: str, pack: str, place: PurePosixPath) -> Path:
    split, name = place.parts[-3], place.parts[-2]  # train or val, the class
    if part == "search":
        return Path("test" if split == "val" else "train", name, place.name)
    if part == "100" and pack != LEARNT[0]:
        return Path("unlabeled", f"{pack}-{name}-{place.name}")
    return Path("labeled", name, f"{pack}-{place.name}")
