"""A training step: losses, gradients, new weights. On a GPU it is recorded as a CUDA graph."""

import sys
import warnings

import torch
from torch import Tensor

from gpq.system.device import out_of_memory
from trainer import distributed
from trainer.recipes import Recipe
from trainer.recipes.batches import Batch

WARM_UP = 3  # steps before the graph is recorded; they allocate all memory and all states

Losses = tuple[Tensor, dict[str, Tensor]]


class TrainingStep:
    """Runs one step of a training each time it is called.

    Each step does the same work. On a single GPU it is therefore recorded after a few steps and
    replayed from then on: one launch replaces a thousand small ones, each of which takes the CPU
    longer than the GPU.

    ``recipe``, ``optimiser``: already restored from a checkpoint, if there is one. On a GPU the
    optimiser's learning rates become tensors. ``graph``: whether to record a CUDA graph.
    """

    def __init__(
        self, recipe: Recipe, optimiser: torch.optim.Optimizer, *, graph: bool = True
    ) -> None:
        self.recipe, self.optimiser = recipe, optimiser
        single_gpu = recipe.device.type == "cuda" and distributed.world() == 1
        self.graphed = graph and single_gpu and not recipe.config.compile
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps_alone = 0
        if self.graphed:
            _make_capturable(recipe.device, optimiser)

    def __call__(self) -> Losses:
        """Returns the total loss and its parts.

        If memory runs out, all steps from then on have smaller batches. Raises TrainerError if
        even the smallest batch does not fit.
        """
        while True:
            try:
                return self._run(self.recipe.draw())
            except RuntimeError as error:
                if not out_of_memory(error) or distributed.world() > 1:
                    raise
            self._shrink()  # here the error, which keeps its frames' tensors alive, is gone

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
        """Records a step without computing it. If that fails, steps are run without a graph."""
        graph, views = torch.cuda.CUDAGraph(), self.recipe.view_generator
        state = views.get_state()
        graph.register_generator_state(views)
        self.optimiser.zero_grad(set_to_none=True)  # gradients must be in the graph's memory
        try:
            with torch.cuda.graph(graph):
                found = self._compute(batch)
        except RuntimeError as error:
            self.graphed = False
            # The old generator may still be registered with the failed recording.
            self.recipe.view_generator = torch.Generator(views.device)
            self.recipe.view_generator.set_state(state)
            reason = str(error).partition("\n")[0]
            print(f"steps run without a CUDA graph, which is slower: {reason}", file=sys.stderr)
            return
        self._graph, self._recorded_batch, self._recorded_losses = graph, batch, found

    def _shrink(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        labelled, unlabelled = self.recipe.halve_batches()
        self._graph, self._steps_alone = None, 0
        if self.recipe.device.type == "cuda":
            torch.cuda.empty_cache()
        print(
            f"out of memory: continuing with {labelled} labelled and {unlabelled} unlabelled "
            "images per step",
            file=sys.stderr,
        )


def _make_capturable(device: torch.device, optimiser: torch.optim.Optimizer) -> None:
    """Moves learning rates and step counts to the device, where each replay reads them."""
    for group in optimiser.param_groups:
        group["capturable"] = True
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
    for state in optimiser.state.values():
        state["step"] = state["step"].to(device)
    # The steps before the recording need no graph.
    warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
