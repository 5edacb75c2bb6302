"""The recipe ``distilled``: codes that keep the similarities which a linear classifier predicts."""

import math

import torch
from torch import Tensor

from gpq.engine.torch_architectures import ClassProject
from trainer import distributed
from trainer.components.assignment import ALPHA
from trainer.initial.similarity import embedded, weight_of
from trainer.recipes.base import Recipe
from trainer.recipes.batches import Batch


class Distilled(Recipe):
    """Learns the last layer on a frozen network, from a classifier that is learnt before.

    Two images are as similar as the inner product of their embeddings: the probabilities of
    classes and the features, which weigh less if classes are many. The score of sub-vectors x and
    the code of another image is Σ_m x_m · v_m, where v_m is learnt for each sub-code
    (``GPQ.means``). The loss is minus the correlation of scores and similarities over all pairs of
    a batch. The gradient of the choice of a codeword is that of its soft assignment
    (straight-through estimator, Bengio et al. 2013), which also reaches the v of neighbouring
    sub-codes.

    Codebooks have no prototypes; all of them distinguish both classes and images.
    """

    def begin(self) -> None:
        processes = distributed.world()
        for batches, images in (
            (self.labelled, self.data.labelled),
            (self.unlabelled, self.data.unlabelled),
        ):  # the score of an image with itself says nothing
            most = max(processes, len(images) // processes * processes)
            batches.batch = min(batches.batch, most)

    def optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        last = self._last()
        last.classes.requires_grad_(False)
        learnt = [last.weight, last.bias, self.model.Z, self._means()]
        adam = torch.optim.AdamW(learnt, lr=self.config.learning_rate, weight_decay=0.0)
        return adam, torch.optim.lr_scheduler.LambdaLR(adam, self._rate)

    def _rate(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.config.steps)))

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        model, last = self.model, self._last()
        images = torch.cat([batch.labelled, batch.unlabelled])
        with torch.no_grad():
            seen = self.views.network_input(self.views.plain(images))
            likely = torch.softmax(last.classes(seen), dim=1)
            weight = weight_of(self.config.class_weight, likely.shape[1], last.out_features)
            wanted = embedded(likely, seen, weight)
        x = model.sub_vectors(self._features(model, self.views.weak(images, self.view_generator)))
        cosines = torch.einsum("bmd,mkd->bmk", x, model.codewords())
        soft = torch.einsum("bmk,mkd->bmd", torch.softmax(ALPHA * cosines, dim=2), self._means())
        stored = self._means()[torch.arange(model.M, device=self.device), cosines.argmax(dim=2)]
        v = stored + soft - soft.detach()
        kept = correlation(x.flatten(1) @ v.flatten(1).T, wanted @ wanted.T)
        return -kept, {"kept": kept}

    def _means(self) -> Tensor:
        assert self.model.means is not None
        return self.model.means

    def _last(self) -> ClassProject:
        last = self.model.F.get_submodule("project")
        assert isinstance(last, ClassProject)
        return last


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Returns Pearson's correlation of two matrices (B,B), without their diagonals."""
    counted = 1 - torch.eye(len(first), device=first.device)
    a, b = (
        (matrix - (matrix * counted).sum() / counted.sum()) * counted for matrix in (first, second)
    )
    found: Tensor = (a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12)
    return found
