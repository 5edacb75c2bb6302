"""The recipe as published (section 4.1, and its authors' code where the paper is silent)."""

import torch
from torch import Tensor

from gpq.codebook import soft_assign
from trainer import augment, losses
from trainer.recipes.base import Recipe


class Paper(Recipe):
    """Adam 2e-4, beta1 0.5, ×0.95 every 100 steps; flip and shift."""

    lambda_classification = 0.1
    lambda_entropy = 0.1

    def optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        adam = torch.optim.Adam(
            self.model.parameters(), lr=self.config.learning_rate, betas=(0.5, 0.999)
        )
        return adam, torch.optim.lr_scheduler.StepLR(adam, step_size=100, gamma=0.95)

    def losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        model, averaged = self.model, self.config.averaged
        pixels, labels = self._next_labelled()
        # Labelled and unlabelled pass F apart: each has its own batch statistics.
        x = model.sub_vectors(self._features(model, augment.weak(pixels, self.view_generator)))
        raw = self._features(model, augment.weak(self._next_unlabelled(), self.view_generator))
        x_unlabelled = model.sub_vectors(losses.reverse_gradient(raw))

        q = soft_assign(x, model.class_codewords())
        npair = losses.npair(x, q, losses.class_similarity(labels))
        target = losses.class_target(labels)
        classify = losses.classification(model.class_logits(x), target, averaged=averaged).mean()
        entropy = losses.entropy(model.class_logits(x_unlabelled), averaged=averaged)
        total = npair + self.lambda_classification * classify - self.lambda_entropy * entropy
        return total, {"npair": npair, "cls": classify, "entropy": entropy}
