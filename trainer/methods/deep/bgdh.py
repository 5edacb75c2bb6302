"""BGDH: semi-supervised deep hashing with a bipartite graph (Yan, Zhang & Li, IJCAI 2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.methods.base import Lesson
from trainer.methods.deep.learning import SignLearner
from trainer.methods.deep.similarity import alike, pair_likelihood, squared_distances

LANDMARKS, EDGES = 256, 3  # of the graph, and of each image in it
NEGATIVES = 5  # landmarks that an image has no edge to, for each that it has
GRAPH, QUANTISED = 0.1, 2.0
TOGETHER = 4096  # images that are compared to all landmarks
CLUSTERING = 10  # rounds of k-means


class BGDH(SignLearner):
    """The likelihood of pairwise labels, and an embedding of a bipartite graph between images and
    landmarks that predicts each image's landmarks among others by log σ(γ wᵀh), γ = ±1, with a
    penalty on codes that are far from signs.

    Landmarks are the means of a k-means of all features; an image has edges to the nearest ones.
    Deviation: the context of an image are its landmarks, not the images that share them, whose
    vectors would be as many as the images.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.contexts = nn.Parameter(torch.randn(LANDMARKS, self.bits) * 0.01)
        self.landmarks = torch.zeros(LANDMARKS, self.E)

    @torch.no_grad()
    def begin(self, x: Tensor, y: Tensor, u: Tensor) -> None:
        seen = torch.cat([x, u])
        rows = torch.randperm(len(seen))[:LANDMARKS]
        self.landmarks = seen[rows].clone()
        for _ in range(CLUSTERING):
            parts = torch.split(seen, TOGETHER)
            of = torch.cat([squared_distances(p, self.landmarks).argmin(dim=1) for p in parts])
            counts = torch.bincount(of, minlength=len(self.landmarks))[:, None]
            sums = torch.zeros_like(self.landmarks).index_add_(0, of, seen)
            self.landmarks = torch.where(counts > 0, sums / counts.clamp(min=1), self.landmarks)

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        h, g = self.head(x), self.head(u)
        found = pair_likelihood(h, alike(y, y))
        seen, codes = torch.cat([x, u]), torch.cat([h, g])
        scores = torch.tanh(codes) @ self.contexts[: len(self.landmarks)].T
        graph = prediction(scores, squared_distances(seen, self.landmarks))
        apart = ((codes.sign() - codes) ** 2).mean()
        return found + GRAPH * graph + QUANTISED * apart


def prediction(scores: Tensor, distances: Tensor) -> Tensor:
    """Minus the mean log σ(γ·score): γ is 1 for the EDGES nearest landmarks of an image, and -1 for
    NEGATIVES random others for each of them. scores, distances (B,L)."""
    near = distances.topk(EDGES, largest=False).indices
    drawn = torch.randint(scores.shape[1], (len(scores), EDGES * NEGATIVES))
    others = (drawn[:, :, None] != near[:, None]).all(dim=2)
    positive = functional.logsigmoid(scores.gather(1, near))
    negative = functional.logsigmoid(-scores.gather(1, drawn)) * others
    return -(positive.sum() + negative.sum()) / (near.numel() + others.sum())
