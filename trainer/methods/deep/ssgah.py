"""SSGAH: semi-supervised generative adversarial hashing (Wang, Zheng, Ye & Yang, ECCV 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.methods.base import Lesson
from trainer.methods.deep.learning import ANCHORS, RATE, SignLearner
from trainer.methods.deep.similarity import alike, squared_distances, triplets

HIDDEN, NOISE = 256, 32
MARGIN = 1.0
SYNTHETIC = 0.03  # weight of the ranking of synthetic images


class SSGAH(SignLearner):
    """A generator makes, for each unlabelled image, a similar synthetic one; a discriminator tells
    pairs of similar labelled images from pairs with a synthetic one; and a hash layer learns from
    triplets of labelled images and from triplets of an unlabelled image, its synthetic one and
    another image.

    Deviations: images are their given features, which is where the generator works too; the
    discriminator judges pairs, not triplets; the generator learns to fool it alone; the third image
    of a synthetic triplet is another one of the batch; an image counts as similar to itself, too.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.generator = nn.Sequential(
            nn.Linear(self.E + NOISE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, self.E)
        )
        self.discriminator = nn.Sequential(
            nn.Linear(2 * self.E, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, 1)
        )
        self.judging = torch.optim.Adam(
            self.discriminator.parameters(), lr=RATE, betas=(0.5, 0.999)
        )

    def relaxed(self, x: Tensor) -> Tensor:
        return torch.tanh(self.head(x))

    def synthetic(self, u: Tensor) -> Tensor:
        """Features (B,E) -> features (B,E) of similar images that do not exist."""
        made: Tensor = u + self.generator(torch.cat([u, torch.randn(len(u), NOISE)], dim=1))
        return made

    def loss(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        similar = alike(y, y)
        made = self.synthetic(u)
        self._judge(x, similar, u, made.detach())
        h = self.relaxed(x)
        anchors = slice(ANCHORS)
        ranked = squared_distances(h[anchors], h) / self.bits
        found = triplets(ranked, similar[anchors], MARGIN)
        self.discriminator.requires_grad_(False)
        fooled = self.judgement(u, made)
        g, s = self.relaxed(u), self.relaxed(made.detach())
        others = g.roll(len(g) // 2, dims=0)
        near, far = (((g - other) ** 2).mean(dim=1) for other in (s, others))
        of_synthetic = (MARGIN + near - far).clamp(min=0).mean()
        real = torch.ones_like(fooled)
        adversarial = functional.binary_cross_entropy_with_logits(fooled, real)
        return found + SYNTHETIC * (of_synthetic + adversarial)

    def judgement(self, first: Tensor, second: Tensor) -> Tensor:
        """Pairs of features (B,E) -> (B,1), the logit that both are real and similar."""
        judged: Tensor = self.discriminator(torch.cat([first, second], dim=1))
        return judged

    def _judge(self, x: Tensor, similar: Tensor, u: Tensor, made: Tensor) -> None:
        """Updates the discriminator, with an optimiser of its own."""
        self.discriminator.requires_grad_(True)
        others = similar & ~torch.eye(len(x), dtype=torch.bool)
        paired = others.any(dim=1)
        if not paired.any():
            return
        partner = torch.multinomial(others[paired].float(), 1)[:, 0]
        real, false = self.judgement(x[paired], x[partner]), self.judgement(u, made)
        loss = functional.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        loss = loss + functional.binary_cross_entropy_with_logits(false, torch.zeros_like(false))
        self.judging.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.judging.step()
