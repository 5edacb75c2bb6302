"""Lists the runs that each table or figure of the paper needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from trainer.config import NESTED_BITS
from trainer.data.datasets import DRAWS

PAPER_BITS = (12, 24, 32, 48)
NETWORK, SIZE = "efficientnet-lite0", 128  # of features, and pixels; CIFAR-10 has 32 a side
PAIRS = tuple(product((0.0, 0.01, 0.1, 1.0), repeat=2))  # lambda1 and lambda2 in figure 4
CNN_F = "GPQ-F"  # the variant with another network; at 224 pixels, 60,000 images take 9 GB
VARIANTS = {"GPQ": "gpq", "GPQ-H": "gpq-h", "GPQ-T": "gpq-t", CNN_F: "gpq-f"}

# mAP by bits as printed in tables 2 and 3 of the paper; table 3 has means of five draws.
PUBLISHED = {
    ("cifar10", 1): (0.858, 0.869, 0.878, 0.883),
    ("cifar10", 2): (0.321, 0.333, 0.350, 0.358),
    ("nuswide", 1): (0.852, 0.865, 0.876, 0.878),
    ("nuswide", 2): (0.554, 0.565, 0.578, 0.586),
}


@dataclass(frozen=True)
class PlannedRun:
    """One training and its evaluation. ``nested``: measures shorter codes of the same model too."""

    dataset: str
    recipe: str
    bits: int
    variant: str = "gpq"
    lambda1: float | None = None
    lambda2: float | None = None
    nested: bool = False

    @property
    def name(self) -> str:
        weights = [("l1", self.lambda1), ("l2", self.lambda2)]
        marked = [f"{name}-{value:g}" for name, value in weights if value is not None]
        marked += ["nested"] if self.nested else []
        return "-".join([self.dataset, self.recipe, self.variant, str(self.bits), *marked])

    @property
    def lengths(self) -> list[int]:
        """The code lengths that the evaluation measures."""
        shorter = [bits for bits in NESTED_BITS if bits < self.bits] if self.nested else []
        return [*shorter, self.bits]

    @property
    def options(self) -> list[str]:
        """The command-line options of ``trainer train``."""
        words = ["--dataset", self.dataset, "--recipe", self.recipe, "--bits", str(self.bits)]
        other_network = self.variant == VARIANTS[CNN_F]
        words += ["--network", "cnn-f"] if other_network else ["--variant", self.variant]
        for name, value in (("--lambda1", self.lambda1), ("--lambda2", self.lambda2)):
            words += [] if value is None else [name, str(value)]
        return words


def table(
    dataset: str, protocol: int, recipe: str, bits: Sequence[int], variants: Sequence[str]
) -> list[PlannedRun]:
    """Returns the runs of table 2 (``protocol`` 1) or table 3 (``protocol`` 2).

    ``variants``: names of VARIANTS, each a row.
    """
    names = datasets(dataset, protocol)
    if recipe == "modern":
        return [PlannedRun(name, recipe, max(bits), nested=True) for name in names]
    return [
        PlannedRun(name, recipe, length, VARIANTS[variant])
        for variant in variants
        for length in bits
        for name in names
    ]


def datasets(dataset: str, protocol: int) -> list[str]:
    """Returns the names of the divided data sets: one, or the five draws of protocol 2."""
    draws = [f"{dataset}-unseen-{draw}" for draw in range(DRAWS)]
    return [dataset] if protocol == 1 else draws


def figure(number: int, dataset: str, recipe: str, bits: Sequence[int]) -> list[PlannedRun]:
    """Returns the runs of figure 4 (weights), or the one of figures 3 (curves) and 5 (t-SNE)."""
    longest = max(bits)
    if number != 4:
        return [PlannedRun(dataset, recipe, longest)]
    return [
        PlannedRun(dataset, recipe, longest, lambda1=first, lambda2=second)
        for first, second in PAIRS
    ]
