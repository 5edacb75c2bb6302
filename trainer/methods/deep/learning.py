"""The training that all learnt methods share: batches, the optimiser, features as tensors."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gpq.model.codebook import Codebook, Score
from trainer.methods.base import CodebookCoder, Coder, Floats, Lesson, signs_of

STEPS = 1500
LABELLED, UNLABELLED = 128, 128  # images a step, or all if there are fewer
ANCHORS = 32  # labelled images of a step that are compared to all pairs of others
RATE = 1e-3
DECAY = 1e-4
LEAST_DEVIATION = 1e-6


class Learner(nn.Module, ABC):
    """A layer that learns by the loss of a paper.

    ``E``, ``C``: numbers of features and of classes. ``steps``: of the optimiser.
    """

    steps = STEPS

    def __init__(self, lesson: Lesson) -> None:
        super().__init__()
        self.bits, self.M = lesson.bits, lesson.M
        self.E, self.C = lesson.labelled.shape[1], lesson.labels.shape[1]

    @abstractmethod
    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Features x (B,E) with labels y (B,C) float32, or what ``targets`` makes of them, and
        unlabelled features u (B,E)."""

    @abstractmethod
    def coder(self, standard: "Standardise") -> Coder:
        """Returns what encodes features, which ``standard`` standardises first."""

    def targets(self, y: Tensor) -> Tensor:
        """Labels (L,C) -> (L,·), what the loss gets of each image as its ``y``."""
        return y

    def begin(self, x: Tensor, y: Tensor, u: Tensor) -> None:
        """Prepares the training: all features and labels."""

    def before_step(self, step: int, x: Tensor) -> None:
        """Is called before each step; x are the features of the labelled images."""

    def finish(self, x: Tensor) -> None:
        """Is called after the last step, with the features of the labelled images."""


class Standardise(nn.Module):
    """Centres features (N,E) and divides them by their root mean square deviation."""

    def __init__(self, features: Floats) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(features.mean(axis=0)))
        self.mean: Tensor
        self.deviation = max(float(features.var(axis=0).mean()) ** 0.5, LEAST_DEVIATION)

    def forward(self, features: Tensor) -> Tensor:
        standardised: Tensor = (features - self.mean) / self.deviation
        return standardised


def learn(kind: type[Learner]) -> Callable[[Lesson], Coder]:
    """Returns the method that trains a Learner by AdamW, with a rate that falls to 0 like a
    cosine."""

    def method(lesson: Lesson) -> Coder:
        generator = torch.Generator().manual_seed(lesson.seed)
        standard = Standardise(lesson.all)
        x, u = (standard(torch.from_numpy(f)) for f in (lesson.labelled, lesson.unlabelled))
        u = u if len(u) else x
        y = torch.from_numpy(lesson.labels).float()
        with torch.random.fork_rng(enabled=True):
            torch.manual_seed(lesson.seed)
            learner = kind(lesson)
            learner.begin(x, y, u)
            y = learner.targets(y)
            adam = torch.optim.AdamW(learner.parameters(), lr=RATE, weight_decay=DECAY)
            for step in tqdm(range(learner.steps), desc=kind.__name__, leave=False):
                for group in adam.param_groups:
                    group["lr"] = RATE * (1 + math.cos(math.pi * step / learner.steps)) / 2
                learner.before_step(step, x)
                rows = torch.randperm(len(x), generator=generator)[:LABELLED]
                others = torch.randperm(len(u), generator=generator)[:UNLABELLED]
                loss = learner.loss(x[rows], y[rows], u[others])
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
            learner.finish(x)
        learner.requires_grad_(False)
        return learner.coder(standard)

    return method


class SignLearner(Learner):
    """A learner whose codes are the signs of a linear layer, ``head``."""

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.head = nn.Linear(self.E, self.bits)

    def coder(self, standard: Standardise) -> Coder:
        return signs_of(nn.Sequential(standard, self.head), self.bits)


def products_of(standard: Standardise, network: nn.Module, words: Tensor, score: Score) -> Coder:
    """Returns the coder of a network's outputs (N,M·d) by the nearest of words (M,16,d)."""
    codebook = Codebook(words.detach().numpy(), score=score)
    return CodebookCoder(nn.Sequential(standard, network), codebook)
