import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.numpy import save as to_bytes
from torch import nn

from gpq.engine.torch_architectures import NETWORKS, build
from gpq.model import graph as checked
from gpq.model import weights
from gpq.model.graph import GRAPH
from gpq.model.weights import WEIGHTS
from trainer.artifacts import graph
from trainer.errors import TrainerError
from trainer.options import DEFAULT_SIZES

D = 24
SIZES = {**DEFAULT_SIZES, "alexnet": 100, "cnn-f": 100, "resnet18": 64, "resnet50": 64}


def network(name: str) -> nn.Module:
    """Returns a network with random weights, whose batch norms have statistics of their own."""
    torch.manual_seed(3)
    made = build(name, D).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.7, 1.4)
            nn.init.uniform_(module.weight, 0.7, 1.4)
    return made


def written(made: nn.Module, size: int, folder: Path) -> tuple[bytes, weights.Weights]:
    """Writes a network's weights and its graph; returns the graph, and the weights as read."""
    (folder / WEIGHTS).write_bytes(to_bytes(graph.tensors_of(made)))
    stored = weights.read(folder / WEIGHTS)
    exported = graph.serialise(graph.export(made, size), stored.places)
    (folder / GRAPH).write_bytes(exported)
    return exported, stored


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_exported_whole_and_computes_the_same(name: str, tmp_path: Path) -> None:
    made, size = network(name), SIZES[name]
    exported, stored = written(made, size, tmp_path)
    cost = checked.check(exported, stored, size, D)
    assert 0 < cost.multiplications < 5e9

    session = onnxruntime.InferenceSession(tmp_path / GRAPH)
    for count in (1, 5):
        images = torch.randn(count, 3, size, size)
        with torch.inference_mode():
            wanted = made(images).numpy()
        (found,) = session.run(None, {graph.INPUT: images.numpy()})
        assert found.shape == (count, D)
        assert np.abs(found - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())

    parsed = onnx.load_model_from_string(exported)
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    kinds = [node.op_type for node in parsed.graph.node]
    assert kinds.count("BatchNormalization") == len(norms)
    outside = {t.name for t in parsed.graph.initializer if t.external_data}
    counters = {key for key in made.state_dict() if key.endswith("num_batches_tracked")}
    assert outside == set(made.state_dict()) - counters

    assert not re.search(rb"site-packages|\.py\b|[\w.-]+/[\w.-]+/", exported)
    assert len(exported) < 200_000


def test_what_is_missing_for_an_export_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert graph.missing() == ""
    monkeypatch.setattr(graph, "NEEDED", ("onnx", "no_such_module"))
    assert graph.missing() == "no_such_module is not installed"


class Unexportable(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :D] if images.sum() > 0 else images.flatten(1)[:, -D:]


class Forbidden(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).sort(dim=1).values[:, :D]


def test_a_network_that_cannot_be_exported_is_one_clear_line() -> None:
    with pytest.raises(TrainerError, match=r"cannot be exported as a graph: .+") as caught:
        graph.require_servable(Unexportable(), 32, D)
    assert len(str(caught.value).splitlines()) == 1


def test_a_network_that_no_service_could_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainerError, match=r"no service could run the network: .*not allowed"):
        graph.require_servable(Forbidden(), 32, D)
    monkeypatch.setattr(graph, "MAX_BYTES", 1000)
    with pytest.raises(TrainerError, match="at most 1000"):
        graph.require_servable(network("resnet"), 32, D)
