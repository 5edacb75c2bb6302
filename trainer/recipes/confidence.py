"""Weights pseudo-labels by how certain they are."""

import torch
from torch import Tensor


class Confidence:
    """The weights of pseudo-labels of SoftMatch (Chen et al., ICLR 2023, equations 4 to 8).

    A weight depends on the largest probability of an image. It is 1 above the running mean, and
    below it it falls like a Gaussian with the running variance, so there is no threshold to
    choose. Probabilities are first divided by the running share of their class (uniform
    alignment), so that classes the teacher prefers do not displace the others. The pseudo-labels
    themselves are not changed.
    """

    momentum = 0.99
    deviations = 2.0  # weight exp(-2²/2) at one standard deviation below the mean
    least = 1e-6

    def __init__(self, classes: int, device: torch.device) -> None:
        self.share = torch.full((classes,), 1 / classes, device=device)
        self.mean = torch.tensor(0.0, device=device)
        self.variance = torch.tensor(0.0, device=device)
        self.calls = torch.tensor(0.0, device=device)

    @torch.no_grad()
    def __call__(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B,L) -> classes (B,) int64 and their weights (B,) in (0, 1]."""
        # The first calls are averaged equally: an initial value would take hundreds to forget.
        self.calls += 1
        rate = (1 / self.calls).clamp(min=1 - self.momentum)
        self.share.lerp_(probabilities.mean(dim=0), rate)
        aligned = probabilities / self.share
        aligned = aligned / aligned.sum(dim=1, keepdim=True)
        largest = aligned.amax(dim=1)
        self.mean.lerp_(largest.mean(), rate)
        self.variance.lerp_(largest.var(unbiased=False), rate)
        below = (largest - self.mean).clamp(max=0)
        spread = (2 * self.variance).clamp(min=self.least)
        weights = torch.exp(-(below**2) * self.deviations**2 / spread)
        return probabilities.argmax(dim=1), weights.clamp(min=self.least)

    def state(self) -> Tensor:
        return torch.cat([self.share, self.mean[None], self.variance[None], self.calls[None]])

    def load_state(self, state: Tensor) -> None:
        *share, self.mean, self.variance, self.calls = state.to(self.share.device).clone()
        self.share = torch.stack(share)
