"""Makes tables of images with several labels, of two data sets.

clothing  Clothing Co-Parsing (Yang, Luo & Lin, CVPR 2014): 2,098 photographs of people in the
          street, with the garments that they wear, a checkout of bearpaw/clothing-co-parsing.
          Labels that few or many photographs have say little: those of at least LEAST images and at
          most the share MOST of them are kept.
pacs      PACS (Li, Yang, Song & Hospedales, ICCV 2017): <style>/<kind>/*, photographs, paintings
          and cartoons of seven kinds; the style and the kind of each are its labels.

.venv/bin/python -m bench.several_labels clothing CCP              # writes CCP/clothing.csv
.venv/bin/python -m bench.several_labels pacs PACS                 # writes PACS/pacs.csv
.venv/bin/python -m trainer compare --data CCP/clothing.csv --data PACS/pacs.csv
"""

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.io import loadmat

NO_GARMENTS = {"null", "skin", "hair"}
LEAST, MOST = 50, 0.25
PHOTOS = "photos"


def clothing(root: Path) -> dict[str, set[str]]:
    """Returns the garments in each photograph, by its path."""
    names = [str(name[0]) for name in loadmat(root / "label_list.mat")["label_list"].ravel()]
    found: dict[str, set[str]] = {}
    for photo in sorted((root / PHOTOS).glob("*.jpg")):
        tags = root / "annotations" / "image-level" / f"{photo.stem}.mat"
        areas = root / "annotations" / "pixel-level" / f"{photo.stem}.mat"
        if tags.exists():
            numbers = loadmat(tags)["tags"].ravel()
        else:
            numbers = np.unique(loadmat(areas)["groundtruth"])
        garments = {names[number] for number in numbers} - NO_GARMENTS
        found[f"{PHOTOS}/{photo.name}"] = garments
    return _kept(found)


def pacs(root: Path) -> dict[str, set[str]]:
    """Returns the style and the kind of each image, by its path."""
    files = [file.relative_to(root) for file in sorted(root.glob("*/*/*")) if file.is_file()]
    return {str(file): {file.parts[0], file.parts[1]} for file in files}


def _kept(garments: dict[str, set[str]]) -> dict[str, set[str]]:
    """Returns the garments that are neither rare nor common, of photographs that have any."""
    counts = Counter(name for names in garments.values() for name in names)
    wanted = {n for n, count in counts.items() if LEAST <= count <= MOST * len(garments)}
    return {photo: names & wanted for photo, names in garments.items() if names & wanted}


SETS = {"clothing": clothing, "pacs": pacs}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("set", choices=SETS)
    words.add_argument("root", type=Path)
    options = words.parse_args()
    found = SETS[options.set](options.root)
    path = options.root / f"{options.set}.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "labels"])
        table.writerows([image, "|".join(sorted(names))] for image, names in found.items())
    labels = Counter(name for names in found.values() for name in names)
    each = sum(labels.values()) / max(1, len(found))
    print(f"{path}: {len(found)} images, {len(labels)} labels, {each:.1f} an image")


if __name__ == "__main__":
    main()
