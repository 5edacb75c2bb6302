"""The settings of a training run, their choices and their defaults."""

from dataclasses import dataclass

SUBVECTOR_DIMENSION = 12  # d of codes that learn classes
QUANTISED_DIMENSION = 4  # d of codes that ``quantise`` learns
BITS = (12, 16, 24, 32, 48, 64)
NESTED_BITS = (12, 24, 32)  # the first bits of a longer code that are usable as codes themselves
QUANTISED_BITS = (24, 48, 96)  # the same of codes that ``quantise`` learns
CLASS_CODEBOOKS = 8  # further codebooks distinguish images of the same class
EVERY_METHOD = "all"  # in place of the names of methods to compare
PAPER, MODERN, DISTILLED = RECIPES = ("paper", "modern", "distilled")
LOGITS = ("averaged", "per-subspace")
BATCHES = {
    "paper": (500, 500),
    "modern": (192, 320),
    "distilled": (64, 448),
}  # labelled and unlabelled images per step
STEPS = {"paper": 3000, "modern": 4500, "distilled": 600}
FROZEN_STEPS = 1500  # of ``modern`` where only the last layer learns
REPORT = "report.html"  # written beside the artifact
HELD_OUT = {"paper": 0.0, "modern": 0.1, "distilled": 0.1}  # share of the labelled images
FREEZE_ALL, FREEZE_NONE = "all", "none"
# Views of each image that a frozen part of the network sees.
VIEWS = {"paper": 4, "modern": 4, "distilled": 2}
VARIANTS = ("gpq", "gpq-h", "gpq-t")  # as published; without classifier; triplets for N-pairs
LAMBDAS = {
    "paper": (0.1, 0.1),
    "modern": (1.0, 0.1),
    "distilled": (0.0, 0.0),
}  # weights of L_cls and of the entropy
LEARNING_RATES = {"paper": 2e-4, "modern": 3e-3, "distilled": 1e-3}
FINE_RATE = 7e-4  # of ``modern`` where layers of an EfficientNet learn, not only the last


@dataclass(frozen=True)
class Architecture:
    """A network of the project: its name, its width, and the side of its images in pixels."""

    network: str
    width: int
    size: int


@dataclass(frozen=True)
class Config:
    """The settings of one training run; checkpoints and artifacts contain them.

    ``batch_labelled``, ``batch_unlabelled``: images of either kind per step. ``details``: how many
    of the M codebooks, the last ones, learn details rather than classes; all of them with the
    recipe ``distilled``, whose codebooks have no prototypes. ``lambda1``, ``lambda2``:
    weights of L_cls and of the entropy. ``init``: id of the artifact the run starts from.
    ``teacher``: id of the artifact that predicts labels. ``compile``: back end of torch.compile.
    These three are empty if unused. ``freeze``: which part of the network does not learn, ``none``,
    ``all`` or a number of stages. ``views``: of each image that a frozen part sees; 0 without one.
    ``class_weight``: weight of classes beside features in the similarity that ``distilled`` keeps;
    None chooses it by their number.
    """

    recipe: str
    variant: str
    network: str
    width: int
    size: int
    bits: int
    details: int
    logits: str
    steps: int
    batch_labelled: int
    batch_unlabelled: int
    learning_rate: float
    lambda1: float
    lambda2: float
    held_out: float
    seed: int
    dataset: str
    init: str
    teacher: str
    compile: str
    freeze: str = FREEZE_NONE
    views: int = 0
    class_weight: float | None = None

    @property
    def frozen(self) -> bool:
        return self.freeze != FREEZE_NONE

    @property
    def distilled(self) -> bool:
        return self.recipe == DISTILLED

    @property
    def stages(self) -> int | None:
        """The number of frozen stages; None if all layers before the last are frozen."""
        return None if self.freeze == FREEZE_ALL else int(self.freeze)

    @property
    def built(self) -> Architecture:
        return Architecture(self.network, self.width, self.size)

    @property
    def M(self) -> int:
        return self.bits // 4

    @property
    def averaged(self) -> bool:
        return self.logits == "averaged"

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Numbers of leading codebooks that are trained to be usable alone, in rising order.

        The last one is the number of all codebooks that learn classes.
        """
        whole = self.M - self.details
        return (*(bits // 4 for bits in NESTED_BITS if bits // 4 < whole), whole)


def default_details(bits: int) -> int:
    """Returns the number of codebooks beyond CLASS_CODEBOOKS, which ``modern`` uses for details."""
    return max(0, bits // 4 - CLASS_CODEBOOKS)
