import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpq.engine import onnxruntime_network
from gpq.engine.onnxruntime_network import ONNXRuntimeNetwork
from gpq.errors import ArtifactError
from gpq.model import artifact
from gpq.model.graph import GRAPH

NO_ROOM = (
    "Non-zero status code returned while running Conv node. Failed to allocate memory for "
    "requested buffer of size 1073741824"
)


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (13, 3, 32, 32), dtype=np.uint8)


class FullSession:
    """Has memory for ``room`` images at once, and raises an error of no known class otherwise."""

    def __init__(self, session: Any, room: int, message: str) -> None:
        self.session, self.room, self.message = session, room, message
        self.seen: list[int] = []

    def run(self, outputs: None, inputs: dict[str, NDArray[np.float32]]) -> list[object]:
        (images,) = inputs.values()
        if len(images) > self.room:
            raise Exception(self.message)
        self.seen.append(len(images))
        found: list[object] = self.session.run(outputs, inputs)
        return found


def test_onnx_runtime_is_there() -> None:
    assert onnxruntime_network.missing() == ""


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert onnxruntime_network.missing() == "ONNX Runtime is not installed"


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_a_package_that_does_not_start_is_named(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def library() -> None:
        raise error("libgomp.so.1: no such file\nand more")

    monkeypatch.setattr(onnxruntime_network, "library", library)
    reason = onnxruntime_network.missing()
    assert reason == "ONNX Runtime does not start: libgomp.so.1: no such file"


def test_a_build_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    library = onnxruntime_network.library()
    monkeypatch.setattr(library, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert onnxruntime_network.missing() == ""
    assert onnxruntime_network.missing("cuda") == (
        "this build of ONNX Runtime has no CUDAExecutionProvider; install onnxruntime-gpu"
    )


def test_a_batch_without_room_runs_in_halves(random_model: Path, pixels: NDArray[np.uint8]) -> None:
    times: list[None] = []
    network = ONNXRuntimeNetwork(artifact.load(random_model), "cpu", 1, lambda: times.append(None))
    expected = network.features(pixels)
    full = FullSession(network._session, 2, NO_ROOM)
    network._session = full
    assert np.allclose(network.features(pixels), expected, rtol=1e-5, atol=1e-5)
    assert full.seen == [2, 2, 2, 2, 2, 2, 1]
    assert len(times) == 4


def test_without_room_for_one_image_it_is_a_runtime_error(
    random_model: Path, pixels: NDArray[np.uint8]
) -> None:
    network = ONNXRuntimeNetwork(artifact.load(random_model), "cpu", 1, lambda: None)
    network._session = FullSession(network._session, 0, NO_ROOM)
    with pytest.raises(RuntimeError, match=r"ONNX Runtime: out of memory: .*Failed to allocate"):
        network.features(pixels)


def test_other_errors_are_runtime_errors_too(random_model: Path, pixels: NDArray[np.uint8]) -> None:
    times: list[None] = []
    network = ONNXRuntimeNetwork(artifact.load(random_model), "cpu", 1, lambda: times.append(None))
    network._session = FullSession(network._session, 0, "indices element out of data bounds")
    with pytest.raises(RuntimeError, match="ONNX Runtime: indices element out of data bounds"):
        network.features(pixels)
    assert not times


def test_threads_don_t_spin_while_they_wait(random_model: Path) -> None:
    network = ONNXRuntimeNetwork(artifact.load(random_model), "cpu", 2, lambda: None)
    options = network._session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert network._session.get_providers() == ["CPUExecutionProvider"]


def test_a_graph_that_it_cannot_run_is_an_error_of_the_artifact(
    random_model: Path, tmp_path: Path
) -> None:
    found = artifact.load(random_model)
    (tmp_path / GRAPH).write_bytes(b"no graph")
    broken = artifact.Artifact(**{**vars(found), "folder": tmp_path})
    with pytest.raises(ArtifactError, match=r"network\.onnx: ONNX Runtime cannot run it: "):
        ONNXRuntimeNetwork(broken, "cpu", 1, lambda: None)


def test_features_of_another_number_are_an_error_of_the_artifact(random_model: Path) -> None:
    found = artifact.load(random_model)
    other = artifact.Artifact(
        **{**vars(found), "codebook": type(found.codebook)(found.codebook.Z[:3])}
    )
    with pytest.raises(ArtifactError, match=r"it computes \(2, 144\) for 2 images"):
        ONNXRuntimeNetwork(other, "cpu", 1, lambda: None)
