"""An optimiser for convolutions whose scale is free, beside AdamW for everything else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.device import has_bfloat16

ITERATIONS = 4
QUINTIC = (3.4445, -4.7750, 2.0315)  # of Jordan et al.: fast, singular values end in 0.7 to 1.2


def scale_free(network: nn.Module) -> list[Tensor]:
    """The weights of convolutions without a bias: a norm follows, which divides their scale out."""
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    return [m.weight for m in convolutions if m.bias is None]


@torch.no_grad()
def orthogonalise(matrix: Tensor) -> Tensor:
    """(A,B) float32 -> about U·Vᵀ of its singular value decomposition, by Newton-Schulz."""
    a, b, c = QUINTIC
    X = matrix.bfloat16() if has_bfloat16(matrix.device) else matrix.float()
    X = X / (X.norm() + 1e-7)
    tall = len(X) > X.shape[1]
    X = X.T if tall else X
    for _ in range(ITERATIONS):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    turned: Tensor = X.T if tall else X
    return turned.float()


class Muon(torch.optim.AdamW):
    """AdamW, and for groups marked ``orthogonal`` Muon (Jordan et al. 2024): Nesterov momentum,
    made orthogonal. Their weights, those of ``scale_free``, keep filters of mean square length
    1, so that a step of learning rate r turns them by about r.
    """

    momentum = 0.9

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"] if group.get("orthogonal") else ():
                if weight.grad is not None:
                    self._turn(weight, group["lr"], self.state[weight])
                    weight.grad = None  # done, and nothing for AdamW
        loss: float | None = super().step(closure)
        return loss

    def _turn(self, weight: Tensor, rate: float | Tensor, state: dict[str, Any]) -> None:
        gradient = weight.grad
        assert gradient is not None
        if not state:
            state["step"] = torch.tensor(0.0)  # AdamW wants one of all it restores
            state["average"] = torch.zeros_like(weight)
        average = state["average"].mul_(self.momentum).add_(gradient)
        step = gradient.add(average, alpha=self.momentum)
        weight.mul_(len(weight) ** 0.5 / weight.norm())
        weight.sub_(rate * orthogonalise(step.reshape(len(step), -1)).view_as(step))
