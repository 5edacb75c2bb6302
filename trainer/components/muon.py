"""The Muon optimiser for convolutions whose scale has no effect, and AdamW for all else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.device import has_bfloat16

ITERATIONS = 4
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: fast; singular values end in 0.7 to 1.2


def scale_free(network: nn.Module) -> list[Tensor]:
    """Returns the weights of convolutions without a bias and without groups.

    A norm follows them, so the scale of the weights has no effect. The filters of a convolution
    with groups see different channels, so to make them orthogonal has no meaning.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    return [m.weight for m in convolutions if m.bias is None and m.groups == 1]


@torch.no_grad()
def orthogonalise(matrix: Tensor) -> Tensor:
    """(A,B) float32 -> about U·Vᵀ of its singular value decomposition, by Newton-Schulz steps."""
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
    """AdamW, and Muon (Jordan et al. 2024) for the parameter groups marked ``orthogonal``.

    Muon takes Nesterov momentum and makes it orthogonal. It is for the weights of ``scale_free``:
    their filters keep the mean square length that they start with, for which the statistics of
    the following norm were computed. A step with learning rate r turns them by about r.
    """

    momentum = 0.9

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"] if group.get("orthogonal") else ():
                if weight.grad is not None:
                    self._turn(weight, group["lr"], self.state[weight])
                    weight.grad = None  # so that AdamW skips it
        loss: float | None = super().step(closure)
        return loss

    def _turn(self, weight: Tensor, rate: float | Tensor, state: dict[str, Any]) -> None:
        gradient = weight.grad
        assert gradient is not None
        if not state:
            state["step"] = torch.tensor(0.0)  # AdamW needs it to restore a state
            state["average"] = torch.zeros_like(weight)
            state["length"] = weight.norm() / len(weight) ** 0.5
        average = state["average"].mul_(self.momentum).add_(gradient)
        step = gradient.add(average, alpha=self.momentum)
        weight.mul_(state["length"] * len(weight) ** 0.5 / weight.norm())
        turn = orthogonalise(step.reshape(len(step), -1)).view_as(step)
        weight.sub_(rate * state["length"] * turn)
