from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from tests.trainer.recipes.test_recipe import recipe
from trainer.training.step import WARM_UP, TrainingStep


class _Graph:
    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generator = generator


@contextmanager
def _invalid(graph: _Graph) -> Iterator[None]:
    """As where an operation cannot be recorded: it says so at the end, views were drawn by then."""
    torch.rand(1, generator=graph.generator)
    raise RuntimeError("operation not permitted when stream is capturing\nmore")
    yield


def test_where_a_graph_cannot_be_made_steps_go_on_as_if_none_were_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph", _invalid)
    found = []
    for graphed in (False, True):
        made = recipe("modern")
        step = TrainingStep(made, made.optimiser()[0])
        step.graphed = graphed  # as on a card
        found.append([step()[0].item() for _ in range(WARM_UP + 2)])
        assert not step.graphed
    assert found[0] == found[1]
    said = capsys.readouterr().err
    assert said.count("steps without a CUDA graph, slower: operation not permitted") == 1


def test_a_step_on_the_cpu_makes_no_graph() -> None:
    made = recipe("paper")
    step = TrainingStep(made, made.optimiser()[0])
    assert not step.graphed
    first, second = (step()[0].item() for _ in range(2))
    assert first != second
