"""DTQ: deep triplet quantization (Liu, Cao, Long, Wang & Wang, ACM MM 2018)."""

import torch
from torch import Tensor, nn

from gpq.model.codebook import K
from trainer.methods.base import TOGETHER, Coder, Codes, Floats, Lesson, TableCoder, run
from trainer.methods.deep.dqn import k_means
from trainer.methods.deep.learning import Learner, Standardise
from trainer.methods.deep.similarity import alike, squared_distances

DIMENSIONS = 128
GROUP = 8  # negatives of which the hardest is taken
MARGIN = 100.0
QUANTISED, ORTHOGONAL = 0.001, 0.01  # lambda and gamma
WARM_UP = 5  # the codebooks exist after a fifth of the steps
PASSES = 3  # of iterated conditional modes


class DTQ(Learner):
    """Triplets with the hardest negative of a random group, and M codebooks whose words add up to
    an image's vector, with a penalty on codebooks that are not orthogonal.

    Codes are found by iterated conditional modes. Scores are asymmetric inner products. Deviation:
    the codebooks learn by gradients, together with the layer.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.head = nn.Linear(self.E, DIMENSIONS)
        self.words = nn.Parameter(torch.zeros(self.M, K, DIMENSIONS))

    @torch.no_grad()
    def before_step(self, step: int, x: Tensor) -> None:
        if step != self.steps // WARM_UP:
            return
        left = self.head(x)
        for m in range(self.M):  # each codebook begins with what those before it leave
            first = left[torch.linspace(0, len(left) - 1, K).long()]
            self.words[m] = k_means(left[:, None], first[None])[0]
            left = left - self.words[m][squared_distances(left, self.words[m]).argmin(dim=1)]

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        z: Tensor = self.head(x)
        loss = hardest_of_groups(squared_distances(z, z), alike(y, y))
        if not self.words.any():
            return loss
        made = self.words[torch.arange(self.M), additive(z.detach(), self.words.detach())]
        error = ((z - made.sum(dim=1)) ** 2).sum(dim=1).mean()
        return loss + QUANTISED * error + ORTHOGONAL * overlap(self.words)

    def coder(self, standard: Standardise) -> Coder:
        return _Additive(nn.Sequential(standard, self.head), self.words.detach())


class _Additive(TableCoder):
    def __init__(self, network: nn.Module, words: Tensor) -> None:
        self.network, self.words = network, words

    def encode(self, features: Floats) -> Codes:
        found = [additive(z, self.words) for z in torch.split(self._vectors(features), TOGETHER)]
        codes: Codes = torch.cat(found).numpy().astype("uint8")
        return codes

    def tables(self, queries: Floats) -> Floats:
        tables: Floats = torch.einsum("bd,mkd->bmk", self._vectors(queries), self.words).numpy()
        return tables

    def _vectors(self, features: Floats) -> Tensor:
        return torch.from_numpy(run(self.network, features))


def additive(z: Tensor, words: Tensor) -> Tensor:
    """Vectors (B,D), words (M,K,D) -> numbers (B,M) of words whose sum is near each vector.

    Greedily, then one codebook after the other with the others fixed.
    """
    M = len(words)
    left = z.clone()
    codes = torch.zeros(len(z), M, dtype=torch.int64)
    for m in range(M):
        codes[:, m] = squared_distances(left, words[m]).argmin(dim=1)
        left -= words[m][codes[:, m]]
    for _ in range(PASSES):
        for m in range(M):
            left += words[m][codes[:, m]]
            codes[:, m] = squared_distances(left, words[m]).argmin(dim=1)
            left -= words[m][codes[:, m]]
    return codes


def hardest_of_groups(distances: Tensor, similar: Tensor) -> Tensor:
    """Mean of max(0, MARGIN + d(a,p) - d(a,n)) with one random p, and as n the nearest dissimilar
    image of a random group of GROUP, for each anchor that has both. distances, similar (B,B)."""
    B = len(distances)
    others = similar & ~torch.eye(B, dtype=torch.bool)
    p = torch.multinomial(others.float() + 1e-9, 1)
    drawn = torch.multinomial((~similar).float() + 1e-9, min(GROUP, B), replacement=True)
    nearest = distances.gather(1, drawn).min(dim=1).values
    violated = (MARGIN + distances.gather(1, p)[:, 0] - nearest).clamp(min=0)
    usable = others.any(dim=1) & (~similar).any(dim=1)
    return (violated * usable).sum() / usable.sum().clamp(min=1)


def overlap(words: Tensor) -> Tensor:
    """Σ ‖C_m C_nᵀ‖² over all pairs of different codebooks, by the number of entries. (M,K,D)."""
    products = torch.einsum("mkd,nld->mnkl", words, words) ** 2
    different = ~torch.eye(len(words), dtype=torch.bool)
    return products[different].mean() if different.any() else products.sum() * 0
