"""DQN: deep quantization network (Cao, Long, Wang, Zhu & Wen, AAAI 2016)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpq.model.codebook import K
from trainer.methods.base import Coder, Lesson
from trainer.methods.deep.learning import Learner, Standardise, products_of
from trainer.methods.deep.similarity import alike

BOTTLENECK = 300  # dimensions
QUANTISED = 0.1  # weight of the quantisation error
REFRESH = 100  # steps between updates of the codebooks


class DQN(Learner):
    """Learns a bottleneck z by a pairwise cosine loss, the squared difference of the cosine and ±1,
    plus the product quantisation error of z.

    The codebooks are found by k-means of z, again and again. Scores are asymmetric inner products.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        d = -(-BOTTLENECK // self.M)
        self.bottleneck = nn.Sequential(nn.Linear(self.E, self.M * d), nn.Tanh())
        self.words = torch.zeros(self.M, K, d)

    @torch.no_grad()
    def before_step(self, step: int, x: Tensor) -> None:
        if step % REFRESH == 0:
            z = self.bottleneck(x).reshape(len(x), self.M, -1)
            self.words = k_means(z, self.words if step else z[spread(len(z))].transpose(0, 1))

    def finish(self, x: Tensor) -> None:
        self.before_step(REFRESH, x)

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        z: Tensor = self.bottleneck(x)
        unit = functional.normalize(z, dim=1)
        wanted = 2 * alike(y, y).float() - 1
        pairs = ((wanted - unit @ unit.T) ** 2).mean()
        parts = z.reshape(len(z), self.M, -1)
        words = self.words[torch.arange(self.M), nearest(parts, self.words)]
        return pairs + QUANTISED * ((parts - words) ** 2).sum(dim=(1, 2)).mean()

    def coder(self, standard: Standardise) -> Coder:
        return products_of(standard, self.bottleneck, self.words, "dot")


def nearest(parts: Tensor, words: Tensor) -> Tensor:
    """Sub-vectors (B,M,d), words (M,K,d) -> numbers (B,M) of the nearest words."""
    products = torch.einsum("bmd,mkd->bmk", parts, words)
    return ((words * words).sum(dim=2) - 2 * products).argmin(dim=2)


def k_means(parts: Tensor, words: Tensor, rounds: int = 10) -> Tensor:
    """Moves words (M,K,d) to the means of their sub-vectors (N,M,d); an unused word stays."""
    for _ in range(rounds):
        member = functional.one_hot(nearest(parts, words), K).float()
        counts = member.sum(dim=0)[:, :, None]
        sums = torch.einsum("bmk,bmd->mkd", member, parts)
        words = torch.where(counts > 0, sums / counts.clamp(min=1), words)
    return words


def spread(count: int) -> Tensor:
    """Returns K evenly spaced rows."""
    return torch.linspace(0, count - 1, K).long()
