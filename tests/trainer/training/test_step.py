from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from tests.trainer.recipes.test_recipe import recipe
from trainer.training.step import WARM_UP, TrainingStep


class _FakeGraph:
    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generator = generator


@contextmanager
def _failing_recording(graph: _FakeGraph) -> Iterator[None]:
    """Fails at the end of the recording, after views were drawn, as an invalid operation does."""
    torch.rand(1, generator=graph.generator)
    raise RuntimeError("operation not permitted when stream is capturing\nmore")
    yield


def test_if_a_graph_cannot_be_recorded_steps_are_those_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", _failing_recording)
    found = []
    for graphed in (False, True):
        made = recipe("modern")
        step = TrainingStep(made, made.optimiser()[0])
        step.graphed = graphed  # as on a GPU
        found.append([step()[0].item() for _ in range(WARM_UP + 2)])
        assert not step.graphed
    assert found[0] == found[1]
    printed = capsys.readouterr().err
    message = "steps run without a CUDA graph, which is slower: operation not permitted"
    assert printed.count(message) == 1


def test_a_step_on_the_cpu_makes_no_graph() -> None:
    made = recipe("paper")
    step = TrainingStep(made, made.optimiser()[0])
    assert not step.graphed
    first, second = (step()[0].item() for _ in range(2))
    assert first != second
