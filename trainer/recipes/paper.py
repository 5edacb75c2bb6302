"""The recipe ``paper``: as published in section 4.1, completed from the authors' code."""

import torch
from torch import Tensor

from trainer.components import losses
from trainer.components.assignment import soft_assign
from trainer.recipes.base import Recipe
from trainer.recipes.batches import Batch


class Paper(Recipe):
    """The paper's recipe: Adam 2e-4, beta1 0.5, ×0.95 every 100 steps; views flip and shift.

    Two variants are those of section 4.4. GPQ-T learns from triplets. GPQ-H has no classifier, so
    its codewords are Z itself, and unlabelled images are not used.
    """

    gradient_norm = None

    def optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        adam = torch.optim.Adam(
            self.model.parameters(), lr=self.config.learning_rate, betas=(0.5, 0.999)
        )
        return adam, torch.optim.lr_scheduler.StepLR(adam, step_size=100, gamma=0.95)

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        model, config = self.model, self.config
        pixels, labels, unlabelled = batch.labelled, batch.labels, batch.unlabelled
        # Labelled and unlabelled images pass F separately, with their own batch statistics.
        x = model.sub_vectors(self._features(model, self.views.weak(pixels, self.view_generator)))
        q = soft_assign(x, model.codewords())
        similarity = losses.class_similarity(labels)
        if config.variant == "gpq-t":
            search = {"triplet": losses.triplet(x, q, similarity)}
        else:
            search = {"npair": losses.npair(x, q, similarity)}
        total = sum(search.values(), start=torch.zeros((), device=self.device))
        if config.variant == "gpq-h":
            return total, search

        raw = self._features(model, self.views.weak(unlabelled, self.view_generator))
        x_unlabelled = model.sub_vectors(losses.reverse_gradient(raw))
        target, averaged = losses.class_target(labels), config.averaged
        classify = losses.classification(model.class_logits(x), target, averaged=averaged).mean()
        entropy = losses.entropy(model.class_logits(x_unlabelled), averaged=averaged)
        total = total + config.lambda1 * classify - config.lambda2 * entropy
        return total, {**search, "cls": classify, "entropy": entropy}
