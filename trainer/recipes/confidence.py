"""How far a pseudo-label is to be trusted."""

import torch
from torch import Tensor


class Confidence:
    """Weights of pseudo-labels as in SoftMatch (Chen et al., ICLR 2023, equations 4 to 8).

    The weight is 1 above the running mean of the largest probability and falls like a
    Gaussian of its running variance below it: no threshold to choose. Before that,
    probabilities are divided by the running share of their class (uniform alignment), so
    that classes the teacher prefers do not crowd out the others. The label is untouched.
    """

    momentum = 0.99
    deviations = 2.0  # weight exp(-2²/2) at one standard deviation below the mean
    least = 1e-6

    def __init__(self, classes: int, device: torch.device) -> None:
        self.share = torch.full((classes,), 1 / classes, device=device)
        self.mean = torch.tensor(1 / classes, device=device)
        self.variance = torch.tensor(1.0, device=device)

    @torch.no_grad()
    def __call__(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """(B,L) -> classes (B,) int64 and their weights (B,) in (0, 1]."""
        self.share.lerp_(probabilities.mean(dim=0), 1 - self.momentum)
        aligned = probabilities / self.share
        aligned = aligned / aligned.sum(dim=1, keepdim=True)
        largest = aligned.amax(dim=1)
        self.mean.lerp_(largest.mean(), 1 - self.momentum)
        self.variance.lerp_(largest.var(unbiased=False), 1 - self.momentum)
        below = (largest - self.mean).clamp(max=0)
        weights = torch.exp(-(below**2) * self.deviations**2 / (2 * self.variance))
        return probabilities.argmax(dim=1), weights.clamp(min=self.least)

    def state(self) -> Tensor:
        return torch.cat([self.share, self.mean[None], self.variance[None]])

    def load_state(self, state: Tensor) -> None:
        *share, mean, variance = state.to(self.share.device)
        self.share, self.mean, self.variance = torch.stack(share), mean, variance
