"""Encoding when memory runs out, with a network that raises the errors of a full GPU."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gpq.engine import fallback
from gpq.engine.fallback import Fallback
from gpq.model import artifact
from gpq.model.model import Model
from gpq.system.device import out_of_memory
from service.models import artifacts
from service.models.decoder import DecodedImage
from service.models.encoder import Encoder

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

    def cpu(self) -> "FullGPU":
        self.on_gpu = False
        return self

    def to(self, device: torch.device) -> "FullGPU":
        if self.room == 0:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.on_gpu = True
        return self

    def forward(self, images: Tensor) -> Tensor:
        if self.on_gpu and len(images) > self.room:
            raise RuntimeError(self.message)
        self.seen.append(len(images))
        return self.network(images)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (13, 3, 32, 32), dtype=np.uint8)


def on_full_gpu(folder: Path, room: int) -> tuple[Model, Model, FullGPU]:
    model = artifact.load(folder)
    gpu = FullGPU(model.network, room)
    return model, replace(model, network=gpu), gpu


@pytest.mark.parametrize("message", FULL)
def test_batches_are_halved_until_they_fit(
    random_model: Path, pixels: np.ndarray, message: str
) -> None:
    model, full, gpu = on_full_gpu(random_model, 4)
    gpu.message = message
    times: list[None] = []
    found = Fallback(lambda: times.append(None)).run(Model.encode, full, pixels)
    assert (found == model.encode(pixels)).all()
    assert gpu.seen == [3, 3, 3, 4]
    assert len(times) == 3
    assert gpu.on_gpu


def test_without_room_for_one_the_cpu_encodes_until_there_is_room_again(
    random_model: Path,
    pixels: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, full, gpu = on_full_gpu(random_model, 0)
    careful = Fallback()
    for compute in (Model.lut, Model.encode):
        found = careful.run(compute, full, pixels)
        assert np.abs(found - compute(model, pixels)).max() < 1e-6
    assert not gpu.on_gpu
    assert caplog.text.count("is on the CPU for now: CUDA out of memory.") == 1
    monkeypatch.setattr(fallback, "RETRY_SECONDS", 0)
    gpu.seen.clear()
    careful._move(full)
    careful.run(Model.encode, full, pixels)
    assert not gpu.on_gpu
    gpu.room = 100
    careful.run(Model.encode, full, pixels)
    assert gpu.on_gpu
    assert gpu.seen == [13, 13]


def test_errors_other_than_running_out_of_memory_are_raised(
    random_model: Path, pixels: np.ndarray
) -> None:
    _, full, gpu = on_full_gpu(random_model, 0)
    gpu.message = "CUDA error: an illegal memory access was encountered"
    with pytest.raises(RuntimeError, match="illegal"):
        Fallback().run(Model.encode, full, pixels)
    assert out_of_memory(torch.OutOfMemoryError("any"))


def test_a_model_that_finds_a_full_gpu_is_loaded_on_the_cpu_and_moves_later(
    random_model: Path,
    pixels: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    load = artifact.load

    def full(folder: Path, device: torch.device | str = "cpu") -> Model:
        if torch.device(device).type == "cuda":
            raise torch.OutOfMemoryError(FULL[0])
        return load(folder, device)

    monkeypatch.setattr(artifact, "load", full)
    monkeypatch.setattr(fallback, "RETRY_SECONDS", 0)
    model = artifacts.use(random_model, "cuda")
    assert "is on the CPU for now: CUDA out of memory." in caplog.text
    expected = model.encode(pixels[:1])[0].tobytes()
    gpu = FullGPU(model.network, 0)
    with closing(Encoder(1, device="cuda")) as encoder:
        encoder.learn(replace(model, network=gpu))
        learnt = encoder.models[model.id]
        assert learnt.device.type == "cuda"
        assert encoder.encode([DecodedImage(32, 32, {model.id: pixels[0]})], learnt) == [expected]
        assert encoder.lut_of_code(expected, learnt).shape == (12, 16)

        def where(model: Model, pixels: np.ndarray) -> np.ndarray:
            return np.array([model.device.type])

        gpu.room = 100
        assert encoder._fallback.run(where, learnt, pixels) == ["cuda"]
        assert gpu.on_gpu
        encoder.forget(model.id)
        assert not encoder._fallback._back
