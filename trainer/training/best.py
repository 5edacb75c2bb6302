"""Finds the best step of a run by the mAP of the held-out images (early stopping)."""

from typing import Any

import torch

from trainer.components.model import GPQ

CHECKS = 20  # in a whole run
PATIENCE = 10  # checks without improvement after which the run ends
MIN_HELD_OUT = 100  # images; with fewer the best check is a matter of luck


class Best:
    """Keeps the weights of the best check so far, or of the last if there are few images.

    ``images``: number of held-out images. ``start``: the mAP before the first step. It is shown
    beside the others, but its weights are never the best: a run that starts from a model would
    otherwise return it unchanged.
    """

    def __init__(self, images: int) -> None:
        self.decides = images >= MIN_HELD_OUT
        self.step, self.mAP, self.stale, self.last = 0, -1.0, 0, -1.0
        self.start = 0.0
        self.weights: dict[str, torch.Tensor] = {}

    def offer(self, step: int, mAP: float, model: GPQ) -> None:
        """Takes the result of a check; copies the weights of ``model`` if it is the best so far."""
        self.last = mAP
        if self.decides and mAP <= self.mAP:
            self.stale += 1
            return
        self.step, self.mAP, self.stale = step, mAP, 0
        if self.decides:
            self.weights = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @property
    def progress(self) -> str:
        """The mAP before the first step and at the latest check, for the progress bar."""
        latest = f"→{self.last:.3f}" if self.last >= 0 else ""
        return f"{self.start:.3f}{latest}"

    @property
    def exhausted(self) -> bool:
        return self.stale >= PATIENCE

    def restore(self, model: GPQ) -> None:
        """Restores the weights of the best check in ``model``, if there was a check."""
        if self.weights:
            model.load_state_dict(self.weights)

    def state(self) -> dict[str, Any]:
        return vars(self).copy()

    def load_state(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
