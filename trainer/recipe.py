"""Recipes: which losses, on which views, with which optimiser."""

import copy
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from gpq.codebook import soft_assign
from gpq.preprocess import Preprocess
from trainer import augment, losses
from trainer.config import Config
from trainer.data import TrainingSet
from trainer.model import GPQ


class Batches:
    """Endless shuffled batches of row numbers; every row once before any repeats."""

    def __init__(self, rows: int, batch: int, generator: torch.Generator) -> None:
        self.rows, self.batch, self.generator = rows, batch, generator
        self._left = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        while len(self._left) < self.batch:
            fresh = torch.randperm(self.rows, generator=self.generator)
            self._left = torch.cat([self._left, fresh])
        taken, self._left = self._left[: self.batch], self._left[self.batch :]
        return taken


class Recipe:
    """Shared by both: data on the device, one step's views, the losses by name."""

    lambda_classification = 0.1
    lambda_entropy = 0.1

    def __init__(
        self,
        model: GPQ,
        data: TrainingSet,
        rules: Preprocess,
        config: Config,
        autocast: AbstractContextManager[None],
    ) -> None:
        self.model, self.data, self.rules, self.config = model, data, rules, config
        self.autocast = autocast
        self.device = data.labelled.device
        # Row order is drawn on the CPU, views on the device: same rows on any device.
        self.row_generator = torch.Generator().manual_seed(config.seed)
        self.view_generator = torch.Generator(self.device).manual_seed(config.seed)
        self.labelled = Batches(len(data.labelled), config.batch_labelled, self.row_generator)
        self.unlabelled = Batches(len(data.unlabelled), config.batch_unlabelled, self.row_generator)

    @property
    def trained(self) -> GPQ:
        """The weights an artifact is made of."""
        return self.model

    def optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        raise NotImplementedError

    def losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        """One step's total loss and its named parts."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called once the parameters have moved."""

    def state(self) -> dict[str, object]:
        """What a resumed run needs beside model and optimiser."""
        return {
            "row_generator": self.row_generator.get_state(),
            "view_generator": self.view_generator.get_state(),
            "labelled_left": self.labelled._left,
            "unlabelled_left": self.unlabelled._left,
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.row_generator.set_state(state["row_generator"].cpu())
        self.view_generator.set_state(state["view_generator"].cpu())
        self.labelled._left = state["labelled_left"].cpu()
        self.unlabelled._left = state["unlabelled_left"].cpu()

    def _features(self, model: GPQ, views: Tensor) -> Tensor:
        images = self.rules.normalise(views).contiguous(memory_format=torch.channels_last)
        with self.autocast:
            return model.features(images)

    def _next_labelled(self) -> tuple[Tensor, Tensor]:
        rows = self.labelled.next().to(self.device)
        return self.data.labelled[rows], self.data.labels[rows]

    def _next_unlabelled(self) -> Tensor:
        return self.data.unlabelled[self.unlabelled.next().to(self.device)]


class Paper(Recipe):
    """As published: Adam 2e-4, beta1 0.5, ×0.95 every 100 steps; flip and shift."""

    def optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        adam = torch.optim.Adam(self.model.parameters(), lr=2e-4, betas=(0.5, 0.999))
        return adam, torch.optim.lr_scheduler.StepLR(adam, step_size=100, gamma=0.95)

    def losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        model, averaged = self.model, self.config.averaged
        pixels, labels = self._next_labelled()
        # Labelled and unlabelled pass F apart: each has its own batch statistics.
        x = model.sub_vectors(self._features(model, augment.weak(pixels, self.view_generator)))
        raw = self._features(model, augment.weak(self._next_unlabelled(), self.view_generator))
        x_unlabelled = model.sub_vectors(losses.reverse_gradient(raw))

        q = soft_assign(x, model.codewords())
        npair = losses.npair(x, q, losses.class_similarity(labels))
        classify = losses.classification(model.class_logits(x), labels, averaged=averaged).mean()
        entropy = losses.entropy(model.class_logits(x_unlabelled), averaged=averaged)
        total = npair + self.lambda_classification * classify - self.lambda_entropy * entropy
        return total, {"npair": npair, "cls": classify, "entropy": entropy}


class Modern(Recipe):
    """The same losses, with consistency: confident predictions on a weak view of an
    unlabelled picture are the labels of its strong view (FixMatch, Sohn et al. 2020), for
    L_cls and for the N-pair loss; predictions come from an exponential moving average of
    the weights (Tarvainen & Valpola 2017), which is also what ships. Codewords start at the
    prototypes, so that every class has its own. AdamW, cosine.
    """

    lambda_classification = 1.0
    learning_rate = 3e-3
    weight_decay = 0.05
    warm_up_steps = 100
    confidence = 0.9
    average_decay = 0.996

    def __init__(
        self,
        model: GPQ,
        data: TrainingSet,
        rules: Preprocess,
        config: Config,
        autocast: AbstractContextManager[None],
    ) -> None:
        super().__init__(model, data, rules, config, autocast)
        model.start_at_prototypes()
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.steps_done = 0

    @property
    def trained(self) -> GPQ:
        return self.average

    def optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        decayed = [p for p in self.model.F.parameters() if p.ndim > 1]
        free = [p for p in self.model.F.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": [*free, self.model.Z, self.model.C], "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.99))
        return adam, torch.optim.lr_scheduler.LambdaLR(adam, self._rate)

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.config.steps)))

    def losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        model, averaged = self.model, self.config.averaged
        pixels, labels = self._next_labelled()
        unlabelled = self._next_unlabelled()
        pseudo, confident = self._pseudo_labels(unlabelled)

        half = len(pixels) // 2
        views = [
            augment.weak(pixels[:half], self.view_generator),
            augment.strong(torch.cat([pixels[half:], unlabelled]), self.view_generator),
        ]
        raw = self._features(model, torch.cat(views))
        x = model.sub_vectors(raw)
        x_unlabelled = model.sub_vectors(losses.reverse_gradient(raw[len(pixels) :]))

        known = torch.cat([torch.ones_like(labels, dtype=torch.bool), confident])
        target = torch.cat([labels, pseudo])
        q = soft_assign(x[known], model.codewords())
        npair = losses.npair(x[known], q, losses.class_similarity(target[known]))
        each = losses.classification(model.class_logits(x), target, averaged=averaged)
        classify = each[: len(labels)].mean() + (each * known)[len(labels) :].mean()
        entropy = losses.entropy(model.class_logits(x_unlabelled), averaged=averaged)
        total = npair + self.lambda_classification * classify - self.lambda_entropy * entropy
        parts = {"npair": npair, "cls": classify, "entropy": entropy}
        return total, {**parts, "confident": confident.float().mean()}

    @torch.no_grad()
    def _pseudo_labels(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Classes (B,) int64 by the averaged weights, and (B,) bool where they are confident."""
        raw = self._features(self.average, augment.weak(pixels, self.view_generator))
        logits = self.average.class_logits(self.average.sub_vectors(raw)).mean(dim=1)
        confidence, classes = torch.softmax(logits, dim=-1).max(dim=-1)
        return classes, confidence >= self.confidence

    @torch.no_grad()
    def after_step(self) -> None:
        self.steps_done += 1
        decay = min(self.average_decay, self.steps_done / (self.steps_done + 10))
        pairs: Iterator[tuple[Tensor, Tensor]] = zip(
            _floats(self.average), _floats(self.model), strict=True
        )
        for averaged, current in pairs:
            averaged.lerp_(current, 1 - decay)

    def state(self) -> dict[str, object]:
        more = {"average": self.average.state_dict(), "steps_done": torch.tensor(self.steps_done)}
        return {**super().state(), **more}

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self.average.load_state_dict(state["average"])  # type: ignore[arg-type]
        self.steps_done = int(state["steps_done"])


def _floats(model: nn.Module) -> list[Tensor]:
    return [t for t in model.state_dict().values() if t.is_floating_point()]


RECIPES: dict[str, type[Recipe]] = {"paper": Paper, "modern": Modern}
