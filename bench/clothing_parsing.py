"""Makes a table of images with several labels from Clothing Co-Parsing.

The data set (Yang, Luo & Lin, CVPR 2014) has 2,098 photographs of people in the street, with the
garments that they wear. Labels that few or many photographs have say little: those of at least
LEAST images and at most the share MOST of them are kept. The folder is a checkout of
bearpaw/clothing-co-parsing.

.venv/bin/python -m bench.clothing_parsing CCP                    # writes CCP/garments.csv
.venv/bin/python -m trainer compare --data CCP/garments.csv
"""

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.io import loadmat

NO_GARMENTS = {"null", "skin", "hair"}
LEAST, MOST = 50, 0.25
PHOTOS, TABLE = "photos", "garments.csv"


def garments_of(root: Path) -> dict[str, set[str]]:
    """Returns the garments in each photograph, by the name of its file."""
    names = [str(name[0]) for name in loadmat(root / "label_list.mat")["label_list"].ravel()]
    found: dict[str, set[str]] = {}
    for photo in sorted((root / PHOTOS).glob("*.jpg")):
        tags = root / "annotations" / "image-level" / f"{photo.stem}.mat"
        areas = root / "annotations" / "pixel-level" / f"{photo.stem}.mat"
        if tags.exists():
            numbers = loadmat(tags)["tags"].ravel()
        else:
            numbers = np.unique(loadmat(areas)["groundtruth"])
        found[photo.name] = {names[number] for number in numbers} - NO_GARMENTS
    return found


def kept(garments: dict[str, set[str]]) -> dict[str, set[str]]:
    """Returns the garments that are neither rare nor common, of photographs that have any."""
    counts = Counter(name for names in garments.values() for name in names)
    wanted = {n for n, count in counts.items() if LEAST <= count <= MOST * len(garments)}
    return {photo: names & wanted for photo, names in garments.items() if names & wanted}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("root", type=Path, metavar="CCP")
    root: Path = words.parse_args().root
    found = kept(garments_of(root))
    with (root / TABLE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "labels"])
        table.writerows([f"{PHOTOS}/{photo}", "|".join(sorted(n))] for photo, n in found.items())
    labels = Counter(name for names in found.values() for name in names)
    each = sum(labels.values()) / len(found)
    print(f"{root / TABLE}: {len(found)} images, {len(labels)} labels, {each:.1f} an image")


if __name__ == "__main__":
    main()
