"""The network in torch, also when memory runs out: it raises the errors of a full GPU."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from gpq.engine import engines, torch_network
from gpq.engine.engines import Options
from gpq.engine.torch_network import TorchNetwork
from gpq.errors import ArtifactError
from gpq.model import artifact
from gpq.model.model import Model

FULL = (
    "CUDA out of memory.\nTried to allocate",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
)


class FullGPU(nn.Module):
    """A network that has memory for ``room`` images at once as long as it is on the GPU."""

    def __init__(self, network: nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room, self.on_gpu, self.message = network, room, True, FULL[0]
        self.seen: list[int] = []

    def move(self, device: str) -> None:
        if device == "cuda" and self.room == 0:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.on_gpu = device == "cuda"

    def forward(self, images: Tensor) -> Tensor:
        if self.on_gpu and len(images) > self.room:
            raise RuntimeError(self.message)
        self.seen.append(len(images))
        found: Tensor = self.network(images)
        return found


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (13, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def model(torch_model: Path) -> Model:
    return engines.load(torch_model)


@pytest.fixture(autouse=True)
def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets networks move to a GPU that is not there; returns the devices that they move to."""
    moved: list[str] = []

    def move_to(network: TorchNetwork, device: str) -> None:
        network._place = torch.device("cpu")
        if isinstance(network.module, FullGPU):
            network.module.move(device)
        moved.append(device)

    monkeypatch.setattr(TorchNetwork, "_move_to", move_to)
    return moved


def on_gpu(folder: Path, room: int, on_full: Any = lambda: None) -> tuple[TorchNetwork, FullGPU]:
    network = TorchNetwork(artifact.load(folder), "cuda", 1, on_full)
    gpu = FullGPU(network.module, room)
    network.module = gpu
    return network, gpu


def near(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    return bool(np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("message", FULL)
def test_batches_are_halved_until_they_fit(
    torch_model: Path, model: Model, pixels: NDArray[np.uint8], message: str, moves: list[str]
) -> None:
    times: list[None] = []
    network, gpu = on_gpu(torch_model, 4, lambda: times.append(None))
    gpu.message = message
    moves.clear()
    assert near(network.features(pixels), model.features(pixels))
    assert gpu.seen == [3, 3, 3, 4]
    assert len(times) == 3
    assert gpu.on_gpu
    assert not moves


def test_without_room_for_one_the_cpu_computes_until_there_is_room_again(
    torch_model: Path,
    model: Model,
    pixels: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    network, gpu = on_gpu(torch_model, 0)
    for _ in range(2):
        assert near(network.features(pixels), model.features(pixels))
    assert not gpu.on_gpu
    assert gpu.seen == [13, 13]
    assert caplog.text.count("is on the CPU for now: CUDA out of memory.") == 1
    assert network.device == "cuda"
    later = torch_network.time.monotonic() + torch_network.RETRY_SECONDS
    monkeypatch.setattr(torch_network.time, "monotonic", lambda: later)
    network.features(pixels)
    assert not gpu.on_gpu
    assert caplog.text.count("is on the CPU for now") == 2
    gpu.room = 100
    network.features(pixels)
    assert not gpu.on_gpu  # it has tried just now
    monkeypatch.setattr(torch_network.time, "monotonic", lambda: 2 * later)
    assert near(network.features(pixels), model.features(pixels))
    assert gpu.on_gpu
    assert gpu.seen == [13] * 5


def test_errors_other_than_running_out_of_memory_are_raised(
    torch_model: Path, pixels: NDArray[np.uint8]
) -> None:
    network, gpu = on_gpu(torch_model, 0)
    gpu.message = "CUDA error: an illegal memory access was encountered"
    with pytest.raises(RuntimeError, match="illegal"):
        network.features(pixels)
    assert gpu.on_gpu


def test_a_network_that_finds_a_full_gpu_starts_on_the_cpu_and_moves_later(
    torch_model: Path,
    pixels: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    moved: list[str] = []

    def full(network: TorchNetwork, device: str) -> None:
        network._place = torch.device("cpu")
        moved.append(device)
        if moved == ["cuda"]:
            raise torch.OutOfMemoryError(FULL[0])

    monkeypatch.setattr(TorchNetwork, "_move_to", full)
    network = TorchNetwork(artifact.load(torch_model), "cuda", 1, lambda: None)
    assert moved == ["cuda", "cpu"]
    assert "is on the CPU for now: CUDA out of memory." in caplog.text
    network.features(pixels)
    assert moved == ["cuda", "cpu"]
    later = torch_network.time.monotonic() + torch_network.RETRY_SECONDS
    monkeypatch.setattr(torch_network.time, "monotonic", lambda: later)
    network.features(pixels)
    assert moved == ["cuda", "cpu", "cuda"]


def test_a_broken_gpu_is_an_error_when_a_network_starts(
    torch_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(network: TorchNetwork, device: str) -> None:
        raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setattr(TorchNetwork, "_move_to", broken)
    with pytest.raises(RuntimeError, match="driver version"):
        TorchNetwork(artifact.load(torch_model), "cuda", 1, lambda: None)


def test_a_network_computes_with_as_many_threads_as_it_was_given(
    torch_model: Path, pixels: NDArray[np.uint8]
) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            model = engines.load(torch_model, Options(threads=threads))
            model.features(pixels[:1])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def damaged(torch_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(torch_model, tmp_path / "model"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"resnet32"', '"vit"', "torch cannot build the network: .*no network 'vit'"),
        ('"width": 4', '"width": 8', r"torch cannot build the network: [\s\S]*size mismatch"),
        ('"width": 4', '"width": "wide"', "torch cannot build the network"),
        ('"width": 4', '"width": 1e400', "torch cannot build the network"),
        ('"width": 4', '"width": -4', "torch cannot build the network"),
        ('"width": 4', '"width": 1000000000', "torch cannot build the network"),
    ],
)
def test_another_network_than_that_of_the_weights_is_refused(
    old: str, new: str, message: str, damaged: Path
) -> None:
    config = (damaged / "config.json").read_text()
    assert old in config
    (damaged / "config.json").write_text(config.replace(old, new))
    with pytest.raises(ArtifactError, match=message):
        engines.load(damaged, Options(engine="torch"))


def test_weights_that_are_missing_are_named(damaged: Path) -> None:
    tensors = load_file(damaged / "model.safetensors")
    del tensors["F.project.bias"]
    save_file(tensors, damaged / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"cannot build the network: [\s\S]*project\.bias"):
        engines.load(damaged, Options(engine="torch"))
