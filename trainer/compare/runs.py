"""Runs methods one after the other and keeps the figures of each; finished ones are skipped."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpq.model.codebook import K
from gpq.system.files import replacing
from trainer.compare.material import Material
from trainer.compare.measure import Figures, measure
from trainer.errors import TrainerError, writing

Key = tuple[str, str, int, int]  # the digest, the method, bits, seed


@dataclass(frozen=True)
class Line:
    """The figures of one method on one material.

    ``about``: how the material was made, in words. ``digest``: of all its features and labels.
    """

    material: str
    about: str
    digest: str
    figures: Figures

    @property
    def key(self) -> Key:
        return self.digest, self.figures.method, self.figures.bits, self.figures.seed


def run_all(
    material: Material,
    about: str,
    methods: Sequence[str],
    bits: Sequence[int],
    seeds: Iterable[int],
    path: Path,
) -> list[Line]:
    """Measures each method at each length, unless the file ``path`` has its figures already.

    Returns the lines of all. A line is written as soon as its method is measured. Raises
    TrainerError if there are too few images for the longest codes.
    """
    seeds, digest = list(seeds), material.digest
    _require_enough(material, max(bits))
    wanted = [(name, length, seed) for length in bits for name in methods for seed in seeds]
    known = {line.key: line for line in read(path)}
    for name, length, seed in tqdm(wanted, desc=material.name, unit="run"):
        key = digest, name, length, seed
        if key not in known:
            figures = measure(name, material, length, seed)
            known[key] = Line(material.name, about, digest, figures)
            _write(path, [*read(path), known[key]])
    return [known[digest, *each] for each in wanted]


def read(path: Path) -> list[Line]:
    """Returns the complete lines of a file; none if it does not exist."""
    lines: list[Line] = []
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            values: dict[str, Any] = json.loads(text)
            lines.append(Line(**{**values, "figures": Figures(**values["figures"])}))
        except (ValueError, KeyError, TypeError):  # cut off, as on a full disk; it is run again
            print(f"{path}: skipping an incomplete line: {text[:60]}", file=sys.stderr)
    return lines


def _require_enough(material: Material, bits: int) -> None:
    images, features = len(material.labelled) + len(material.unlabelled), material.labelled.shape[1]
    least = max(K, bits)
    if min(images, features) < least:
        raise TrainerError(
            f"{material.name}: codes of {bits} bits are learnt from at least {least} images and "
            f"features; there are {images} images to learn from, of {features} features each"
        )


def _write(path: Path, lines: Iterable[Line]) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.writelines(json.dumps(asdict(line)).encode() + b"\n" for line in lines)
