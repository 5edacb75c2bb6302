"""What a training run is told, frozen; it is written into checkpoints and artifacts."""

from dataclasses import dataclass

SUBVECTOR_DIMENSION = 12  # d
BITS = (12, 16, 24, 32, 48, 64)
NESTED_BITS = (12, 24, 32)  # shorter codes that the first bits of a longer one serve as
CLASS_CODEBOOKS = 8  # codebooks beyond these tell pictures of a class apart
RECIPES = ("paper", "modern")
LOGITS = ("averaged", "per-subspace")
BATCHES = {"paper": (500, 500), "modern": (192, 320)}  # labelled, unlabelled images a step
STEPS = {"paper": 3000, "modern": 4500}
REPORT = "report.html"  # of a run, beside its artifact
HELD_OUT = {"paper": 0.0, "modern": 0.1}  # share of the labels
VARIANTS = ("gpq", "gpq-h", "gpq-t")  # as published; no classifier; triplets for N-pairs
LAMBDAS = {"paper": (0.1, 0.1), "modern": (1.0, 0.1)}  # weights of L_cls and of the entropy
LEARNING_RATES = {"paper": 2e-4, "modern": 3e-3}


@dataclass(frozen=True)
class Config:
    """One training run. Batch sizes are images a step, both kinds apart.

    details: how many of the M codebooks, the last ones, are about details, not classes.
    lambda1, lambda2: weights of L_cls and of the entropy. init: the id of the artifact that was
    started from, teacher: of the one that guessed labels, or nothing. compile: a back end of
    torch.compile, or nothing.
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

    @property
    def M(self) -> int:
        return self.bits // 4

    @property
    def averaged(self) -> bool:
        return self.logits == "averaged"

    @property
    def prefixes(self) -> tuple[int, ...]:
        """How many leading codebooks are trained to serve alone, the classes' all last."""
        whole = self.M - self.details
        return (*(bits // 4 for bits in NESTED_BITS if bits // 4 < whole), whole)


def default_details(bits: int) -> int:
    """Of ``modern``: what is left when the classes have CLASS_CODEBOOKS."""
    return max(0, bits // 4 - CLASS_CODEBOOKS)
