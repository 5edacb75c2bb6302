"""What a training run is told, frozen; it is written into checkpoints and artifacts."""

from dataclasses import dataclass

SUBVECTOR_DIMENSION = 12  # d
BITS = (12, 16, 24, 32, 48, 64)
RECIPES = ("paper", "modern")
LOGITS = ("averaged", "per-subspace")
DATASETS = ("folder", "cifar10")
BATCHES = {"paper": (500, 500), "modern": (192, 320)}  # labelled, unlabelled images a step
STEPS = {"paper": 3000, "modern": 4500}


@dataclass(frozen=True)
class Config:
    """One training run. Batch sizes are images a step, both kinds apart."""

    recipe: str
    network: str
    width: int
    size: int
    bits: int
    logits: str
    steps: int
    batch_labelled: int
    batch_unlabelled: int
    seed: int
    dataset: str

    @property
    def M(self) -> int:
        return self.bits // 4

    @property
    def averaged(self) -> bool:
        return self.logits == "averaged"
