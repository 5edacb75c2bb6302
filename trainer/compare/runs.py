"""Runs methods one after the other and keeps the figures of each; finished ones are skipped."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from gpq.model.codebook import K
from trainer import lines as files
from trainer.compare import reference
from trainer.compare.material import Material
from trainer.compare.measure import Figures, TooSlowError, measure
from trainer.errors import TrainerError
from trainer.methods import Method
from trainer.methods.base import Coder

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


@dataclass(frozen=True)
class Wanted:
    """What to measure. ``methods``: by name. ``limit``: seconds that a method may learn."""

    methods: Mapping[str, Method]
    bits: Sequence[int]
    seeds: Sequence[int]
    limit: float = math.inf


@dataclass(frozen=True)
class Results:
    """The lines of all runs, and the methods and lengths that were too slow."""

    lines: list[Line]
    too_slow: list[tuple[str, int]]

    @property
    def figures(self) -> list[Figures]:
        return [line.figures for line in self.lines]


Keep = Callable[[Figures, Coder], None]
IsKept = Callable[[str, int, int], bool]


def _keep_nothing(figures: Figures, coder: Coder) -> None:
    return


def _is_kept_always(method: str, bits: int, seed: int) -> bool:
    return True


def run_all(
    material: Material,
    about: str,
    wanted: Wanted,
    path: Path,
    keep: Keep = _keep_nothing,
    is_kept: IsKept = _is_kept_always,
) -> Results:
    """Measures each method at each length, unless the file ``path`` has its figures already.

    A line is written as soon as its method is measured, after ``keep`` got its coder. ``is_kept``:
    whether it has it already. A method that was too slow at one length is not tried at longer
    ones. Raises TrainerError if there are too few images for the longest codes.
    """
    _require_enough(material, max(wanted.bits))
    return _measured(material, about, wanted, path, keep, is_kept)


def _measured(
    material: Material, about: str, wanted: Wanted, path: Path, keep: Keep, is_kept: IsKept
) -> Results:
    digest = material.digest
    known = {line.key: line for line in read(path)}
    found: list[Line] = []
    slow: dict[str, int] = {}
    runs = [(b, name, s) for b in sorted(wanted.bits) for name in wanted.methods
            for s in wanted.seeds]  # fmt: skip
    for bits, name, seed in tqdm(runs, desc=material.name, unit="run"):
        key = digest, name, bits, seed
        if key not in known or not is_kept(name, bits, seed):
            if name in slow:
                continue
            try:
                method = wanted.methods[name]
                figures, coder = measure(name, method, material, bits, seed, wanted.limit)
            except TooSlowError:
                slow[name] = bits
                continue
            keep(figures, coder)
            known[key] = Line(material.name, about, digest, figures)
            others = [line for line in read(path) if line.key != key]
            files.write(path, map(asdict, [*others, known[key]]))
        found.append(known[key])
    return Results(found, list(slow.items()))


def floats(material: Material, about: str, path: Path) -> Figures:
    """Returns the figures of the float features, once measured like those of a method."""
    bits = reference.bits_of(material.queries)
    wanted = Wanted({reference.NAME: reference.FLOATS}, [bits], [0])
    (found,) = _measured(material, about, wanted, path, _keep_nothing, _is_kept_always).figures
    return found


def read(path: Path) -> list[Line]:
    """Returns the complete lines of a file; none if it does not exist."""
    lines: list[Line] = []
    for values in files.read(path):
        try:
            lines.append(Line(**{**values, "figures": Figures(**values["figures"])}))
        except (KeyError, TypeError):  # of another version; it is run again
            print(f"{path}: skipping a line of other fields", file=sys.stderr)
    return lines


def _require_enough(material: Material, bits: int) -> None:
    images, features = len(material.labelled) + len(material.unlabelled), material.labelled.shape[1]
    least = max(K, bits)
    if min(images, features) < least:
        raise TrainerError(
            f"{material.name}: codes of {bits} bits are learnt from at least {least} images and "
            f"features; there are {images} images to learn from, of {features} features each"
        )
