"""The base class of recipes: batches on the device, features of views, the state of a run."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from gpq.pixels.preprocess import Preprocess
from gpq.system.device import in_parts_that_fit
from trainer import distributed
from trainer.components.model import GPQ
from trainer.components.views import views_of
from trainer.config import Config
from trainer.data.image_sets import TrainingSet
from trainer.device import Autocast
from trainer.errors import TrainerError
from trainer.recipes.batches import Batch, Batches

EMBED_BATCH = 512
MIN_BATCH = 4  # images of either kind


class Recipe(ABC):
    """A recipe defines the losses, the views they are computed on, and the optimiser.

    ``data``: on the model's device, or in the host's memory if the device has no room for it.
    """

    gradient_norm: float | None = 5.0  # longer gradients are scaled down to it; None: never

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
        self.device = model.Z.device
        self.views = views_of(data, rules, self.device)
        self.embed_batch = EMBED_BATCH
        # Rows are drawn on the CPU, so that they are the same on any device; views on the device.
        self.row_generator = torch.Generator().manual_seed(config.seed)
        self.view_generator = torch.Generator(self.device).manual_seed(config.seed)
        self.labelled = Batches(self.labelled_rows(), config.batch_labelled, self.row_generator)
        self.unlabelled = Batches(
            torch.arange(len(data.unlabelled)), config.batch_unlabelled, self.row_generator
        )
        self.begin()

    def begin(self) -> None:  # noqa: B027  optional
        """Creates what a recipe needs in addition; called at the end of ``__init__``."""

    def labelled_rows(self) -> Tensor:
        """Returns rows of labelled images, each as often as an epoch contains it."""
        return torch.arange(len(self.data.labelled))

    @property
    def trained(self) -> GPQ:
        """The model whose weights the artifact will have."""
        return self.model

    def networks(self) -> list[nn.Module]:
        """Returns each network F that a step runs."""
        return [self.model.F]

    @abstractmethod
    def optimiser(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Creates the optimiser and its schedule, which are stepped together."""

    def draw(self) -> Batch:
        """Returns the images of the next step, on the device.

        Subclasses also update here whatever else changes from step to step.
        """
        labelled, unlabelled = self.labelled.next(), self.unlabelled.next()
        known = self.data.labels if self.data.all_labelled else self.data.guesses
        return Batch(
            self._take(self.data.labelled, labelled),
            self._take(self.data.labels, labelled),
            self._take(self.data.unlabelled, unlabelled),
            None if known is None else self._take(known, unlabelled),
        )

    @abstractmethod
    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the total loss of a step and its named parts.

        Like ``after_step``, it must run on the device alone and do the same in each step. It may
        neither read a number from the device nor pass one to it, because a CUDA graph would
        repeat the number of the step that was recorded.
        """

    def clip_gradients(self) -> None:
        if self.gradient_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.gradient_norm)

    def after_step(self) -> None:  # noqa: B027  optional
        """Called after the optimiser has updated the parameters."""

    def state(self) -> dict[str, object]:
        """Returns what a resumed run needs besides the model and the optimiser."""
        cuda = torch.cuda.get_rng_state_all() if self.device.type == "cuda" else []
        return {
            "dropout": [torch.get_rng_state(), *cuda],
            "row_generator": self.row_generator.get_state(),
            "view_generator": self.view_generator.get_state(),
            "labelled_left": self.labelled.left,
            "unlabelled_left": self.unlabelled.left,
            "batches": torch.tensor([self.labelled.batch, self.unlabelled.batch]),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        cpu, *cuda = state["dropout"]
        torch.set_rng_state(cpu.cpu())
        if cuda:
            torch.cuda.set_rng_state_all([one.cpu() for one in cuda])
        self.row_generator.set_state(state["row_generator"].cpu())
        self.view_generator.set_state(state["view_generator"].cpu())
        self.labelled.left = state["labelled_left"].cpu()
        self.unlabelled.left = state["unlabelled_left"].cpu()
        self.labelled.batch, self.unlabelled.batch = state["batches"].tolist()

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Images (N,…) as in the training set -> features (N,D) of the ``trained`` model."""
        model = self.trained
        was_training = model.training
        model.eval()
        parts: list[Tensor] = []
        done = 0
        while done < len(pixels):
            found = in_parts_that_fit(
                lambda part: self._network(model, self.views.plain(part.to(self.device))),
                pixels[done : done + self.embed_batch],
            )
            if len(found) > 1:  # parts of the former size would not fit next time
                self.embed_batch = max(map(len, found))
            parts += found
            done += sum(map(len, found))
        model.train(was_training)
        return torch.cat(parts)

    def halve_batches(self) -> tuple[int, int]:
        """Halves the batches; returns the new numbers of labelled and of unlabelled images.

        Raises TrainerError if a batch would be smaller than MIN_BATCH.
        """
        sizes = self.labelled.batch // 2, self.unlabelled.batch // 2
        if min(sizes) < MIN_BATCH:
            raise TrainerError(
                f"out of memory with {self.labelled.batch} + {self.unlabelled.batch} images per "
                "step: give a smaller --size or --width, or another --device"
            )
        self.labelled.batch, self.unlabelled.batch = sizes
        return sizes

    def _features(self, model: GPQ, views: Tensor) -> Tensor:
        return distributed.gather(self._network(model, distributed.share(views)))

    def _network(self, model: GPQ, views: Tensor) -> Tensor:
        images = self.views.network_input(views)
        with self.autocast:
            return model.features(images)

    def _take(self, of_all: Tensor, rows: Tensor) -> Tensor:
        return of_all.index_select(0, rows.to(of_all.device)).to(self.device)
