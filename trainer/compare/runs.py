"""Runs methods one after the other and keeps the figures of each; finished ones are skipped."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from gpq.model.codebook import K
from trainer import lines as files
from trainer import methods
from trainer.compare.material import Material
from trainer.compare.measure import Figures, TooSlowError, measure
from trainer.errors import TrainerError
from trainer.methods import Method
from trainer.methods.base import Coder

Key = tuple[str, str, str, int, int]  # the digests, the method, bits, seed


@dataclass(frozen=True)
class Line:
    """The figures of one method on one material.

    ``about``: how the material was made, in words. ``digest``: of all its features and labels.
    ``code``: of the source of the methods.
    """

    material: str
    about: str
    digest: str
    code: str
    figures: Figures

    @property
    def key(self) -> Key:
        figures = self.figures
        return self.digest, self.code, figures.method, figures.bits, figures.seed


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

    A line is written as soon as its method is measured; then ``keep`` gets its coder. ``is_kept``:
    whether it has it already. A method that is too slow at one length is left out of it and of
    longer ones. Raises TrainerError if there are too few images for the longest codes.
    """
    _require_enough(material, max(wanted.bits))
    digest, code = material.digest, code_digest()
    known = {line.key: line for line in read(path)}
    slow: dict[str, int] = {}
    runs = [
        (bits, name, seed)
        for bits in sorted(wanted.bits)
        for name in wanted.methods
        for seed in wanted.seeds
    ]
    for bits, name, seed in tqdm(runs, desc=material.name, unit="run"):
        key = digest, code, name, bits, seed
        if name in slow or (key in known and is_kept(name, bits, seed)):
            continue
        try:
            method = wanted.methods[name]
            figures, coder = measure(name, method, material, bits, seed, wanted.limit)
        except TooSlowError:
            slow[name] = bits
            continue
        known[key] = Line(material.name, about, digest, code, figures)
        others = [values for values in files.read(path) if _key_of(values) != key]
        files.write(path, [*others, asdict(known[key])])
        keep(figures, coder)
    found = [
        known[digest, code, name, bits, seed]
        for bits, name, seed in runs
        if bits < slow.get(name, math.inf)
    ]
    return Results(found, list(slow.items()))


@cache
def code_digest() -> str:
    """Returns a hash of the source of all methods: figures of other code are not continued."""
    found = hashlib.sha256()
    for path in sorted(Path(methods.__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def read(path: Path) -> list[Line]:
    """Returns the lines of a file that have the fields of this version; none if it does not
    exist."""
    return [line for values in files.read(path) if (line := _line_of(values)) is not None]


def _line_of(values: files.Line) -> Line | None:
    try:
        return Line(**{**values, "figures": Figures(**values["figures"])})
    except (KeyError, TypeError):  # of another version
        return None


def _key_of(values: files.Line) -> Key | None:
    line = _line_of(values)
    return None if line is None else line.key


def _require_enough(material: Material, bits: int) -> None:
    images, features = len(material.labelled) + len(material.unlabelled), material.labelled.shape[1]
    least = max(K, bits)
    if min(images, features) < least:
        raise TrainerError(
            f"{material.name}: codes of {bits} bits are learnt from at least {least} images and "
            f"features; there are {images} images to learn from, of {features} features each"
        )
