"""What recipes share: batches, the network's view of them, the state of a run."""

import torch
from torch import Tensor

from gpq.preprocess import Preprocess
from trainer.config import Config
from trainer.data import TrainingSet
from trainer.device import Autocast
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
    """Which losses, on which views, with which optimiser."""

    def __init__(
        self,
        model: GPQ,
        data: TrainingSet,
        rules: Preprocess,
        config: Config,
        autocast: Autocast,
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
