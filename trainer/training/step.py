"""One training step: losses, gradients, weights. On a card a CUDA graph of it, launched at once."""

import sys
import warnings

import torch
from torch import Tensor

from gpq.system.device import out_of_memory
from trainer import distributed
from trainer.recipes import Recipe
from trainer.recipes.batches import Batch

WARM_UP = 3  # steps before the graph is made: by then all memory and all states are there

Losses = tuple[Tensor, dict[str, Tensor]]


class TrainingStep:
    """Calls of it are the steps of a run. What a recipe computes is the same in each, so that on
    one card it is recorded after a few: a thousand small launches, each of which takes the CPU
    longer than the card, become one.

    recipe, optimiser: as restored from a checkpoint, if from one; rates become tensors on a card.
    graph: False for each operation by itself.
    """

    def __init__(
        self, recipe: Recipe, optimiser: torch.optim.Optimizer, *, graph: bool = True
    ) -> None:
        self.recipe, self.optimiser = recipe, optimiser
        one_card = recipe.device.type == "cuda" and distributed.world() == 1
        self.graphed = graph and one_card and not recipe.config.compile
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps_alone = 0
        if self.graphed:
            _make_capturable(recipe.device, optimiser)

    def __call__(self) -> Losses:
        """The total loss and its parts. Raises TrainerError where memory does not suffice for the
        smallest batch."""
        while True:
            try:
                return self._run(self.recipe.draw())
            except RuntimeError as error:
                if not out_of_memory(error) or distributed.world() > 1:
                    raise
            self._shrink()  # here, where the error and the tensors of its frames are gone

    def _run(self, batch: Batch) -> Losses:
        if self.graphed and self._graph is None and self._steps_alone == WARM_UP:
            self._record(batch)
        if self._graph is not None:
            self._recorded_batch.copy_(batch)
            self._graph.replay()
            return self._recorded_losses
        self._steps_alone += 1
        return self._compute(batch)

    def _compute(self, batch: Batch) -> Losses:
        self.optimiser.zero_grad(set_to_none=True)
        total, parts = self.recipe.losses(batch)
        total.backward()  # type: ignore[no-untyped-call]
        distributed.average_gradients(self.recipe.model)
        self.recipe.clip_gradients()
        self.optimiser.step()
        self.recipe.after_step()
        return total.detach(), {name: value.detach() for name, value in parts.items()}

    def _record(self, batch: Batch) -> None:
        """Nothing is computed yet. Where it fails, steps go on as before."""
        graph, views = torch.cuda.CUDAGraph(), self.recipe.view_generator
        state = views.get_state()
        graph.register_generator_state(views)
        self.optimiser.zero_grad(set_to_none=True)  # gradients are to lie in the graph's memory
        try:
            with torch.cuda.graph(graph):
                found = self._compute(batch)
        except RuntimeError as error:
            self.graphed = False
            # The old one may be left in the middle of the recording.
            self.recipe.view_generator = torch.Generator(views.device)
            self.recipe.view_generator.set_state(state)
            reason = str(error).partition("\n")[0]
            print(f"steps without a CUDA graph, slower: {reason}", file=sys.stderr)
            return
        self._graph, self._recorded_batch, self._recorded_losses = graph, batch, found

    def _shrink(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        labelled, unlabelled = self.recipe.halve_batches()
        self._graph, self._steps_alone = None, 0
        if self.recipe.device.type == "cuda":
            torch.cuda.empty_cache()
        print(
            f"out of memory: going on with {labelled} labelled and {unlabelled} unlabelled "
            "pictures a step",
            file=sys.stderr,
        )


def _make_capturable(device: torch.device, optimiser: torch.optim.Optimizer) -> None:
    """Rates and counts of steps, where a graph reads them anew each time."""
    for group in optimiser.param_groups:
        group["capturable"] = True
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
    for state in optimiser.state.values():
        state["step"] = state["step"].to(device)
    # The steps before the graph are meant to be as they are.
    warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
