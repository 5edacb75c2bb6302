"""Every engine computes the same, and the first that does so is chosen."""

import importlib.util
import json
import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpq.engine import engines, onnxruntime_network, openvino_network
from gpq.engine.engines import Options
from gpq.errors import ArtifactError
from gpq.model import artifact, golden
from gpq.model.artifact import Artifact
from gpq.model.graph import GRAPH
from gpq.model.model import Model
from harness.models import DEFAULT, PHOTOS64, SHIPPED, make_artifact

RELATIVE = 1e-5  # the largest difference of features, beside the largest feature
FOLDERS = {"random": None, "cifar10": SHIPPED, "photos": DEFAULT, "photos64": PHOTOS64}


def noise(rules: Any, count: int, seed: int = 0) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3, rules.size, rules.size), dtype=np.uint8)


def near(found: NDArray[np.float32], expected: NDArray[np.float32], most: float = RELATIVE) -> bool:
    return bool(np.abs(found - expected).max() <= most * np.abs(expected).max())


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, random_model: Path) -> Path:
    return FOLDERS[request.param] or random_model


@pytest.fixture
def damaged(random_model: Path, tmp_path: Path) -> Path:
    """A copy of an artifact that tests may change."""
    return Path(shutil.copytree(random_model, tmp_path / "model"))


def edit(folder: Path, change: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The shipped artifact as a trainer of format 3 wrote it, without a graph."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "old"))
    (folder / GRAPH).unlink()
    edit(folder, lambda c: c.update(format=3))
    return folder


def runnable(found: Artifact) -> list[str]:
    return [engine for engine in engines.ENGINES if engine != "torch" or not found.is_encoder]


def test_engines_compute_the_same_features(folder: Path) -> None:
    found = artifact.load(folder)
    pixels = np.concatenate(
        [golden.images(found.rules, found.about, folder), noise(found.rules, 5)]
    )
    models = [engines.load(folder, Options(engine, "float32")) for engine in runnable(found)]
    assert [model.network.engine for model in models] == runnable(found)
    assert {model.network.precision for model in models} == {"float32"}
    assert {model.id for model in models} == {found.id}
    first = models[0].features(pixels)
    assert first.dtype == np.float32
    assert first.shape == (len(pixels), found.dimension)
    for model in models[1:]:
        assert near(model.features(pixels), first)
    codes = [vector["code"] for vector in found.about["golden"]]
    for model in models:
        features = model.features(pixels[: len(codes)])
        assert model.codebook.encode(features).tolist() == codes


@pytest.fixture(params=engines.ENGINES)
def of_engine(request: pytest.FixtureRequest, random_model: Path, torch_model: Path) -> Model:
    """A small model in each engine; the one of torch has another network."""
    folder = torch_model if request.param == "torch" else random_model
    return engines.load(folder, Options(engine=request.param, streams=2))


def test_a_batch_of_any_size_has_the_rows_of_its_images(of_engine: Model) -> None:
    pixels = noise(of_engine.rules, 70)
    one_by_one = np.concatenate([of_engine.features(image[None]) for image in pixels])
    for size in (*range(12), 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 70):
        found = of_engine.features(pixels[:size])
        assert found.shape == (size, 144)
        assert found.dtype == np.float32
        assert not size or near(found, one_by_one[:size])


def test_results_stay_as_they_are_when_others_are_computed(of_engine: Model) -> None:
    """An engine may write every result to the same memory."""
    first = of_engine.features(noise(of_engine.rules, 2))
    kept = first.copy()
    of_engine.features(noise(of_engine.rules, 2, seed=1))
    assert (first == kept).all()


def test_threads_get_the_features_of_their_own_images(of_engine: Model) -> None:
    batches = [noise(of_engine.rules, 1 + n % 5, seed=n) for n in range(60)]
    expected = [of_engine.features(batch) for batch in batches]
    together = threading.Barrier(6)

    def compute(n: int) -> NDArray[np.float32]:
        if n < 6:
            together.wait(30)
        return of_engine.features(batches[n])

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(compute, range(len(batches))))
    assert all(near(row, right) for row, right in zip(found, expected, strict=True))


def test_auto_takes_the_first_engine(random_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gpq"):
        model = engines.load(random_model)
    assert model.network.engine == "openvino"
    assert model.network.device == "cpu"
    assert model.reason == "the fastest available"
    assert f"model {model.id[:12]}: openvino, the fastest available" in caplog.text


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_an_engine_that_is_asked_for_is_taken(
    engine: Any, random_model: Path, torch_model: Path
) -> None:
    folder = torch_model if engine == "torch" else random_model
    model = engines.load(folder, Options(engine=engine))
    assert model.network.engine == engine
    assert model.reason == "requested"


def hide_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_network, "missing", lambda: "OpenVINO is not installed")


def hide_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_network, "missing", lambda device: "ONNX Runtime is missing")


def hide_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a)
    )


def test_auto_passes_over_engines_that_are_missing_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide_openvino(monkeypatch)
    model = engines.load(SHIPPED)
    assert model.network.engine == "onnxruntime"
    assert model.reason == "the fastest available; OpenVINO is not installed"
    hide_onnxruntime(monkeypatch)
    model = engines.load(SHIPPED)
    assert model.network.engine == "torch"
    assert model.reason.endswith("; OpenVINO is not installed; ONNX Runtime is missing")
    hide_torch(monkeypatch)
    with pytest.raises(
        ArtifactError,
        match=r"cifar10: no engine can run the model: OpenVINO is not installed; ONNX Runtime is "
        "missing; torch is not installed$",
    ):
        engines.load(SHIPPED)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_engine_that_is_asked_for_and_missing_is_an_error(
    engine: Any, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_openvino(monkeypatch)
    hide_onnxruntime(monkeypatch)
    with pytest.raises(ArtifactError, match=r"no engine can run the model: (OpenVINO|ONNX) "):
        engines.load(random_model, Options(engine=engine))


def test_torch_cannot_run_a_network_that_was_given_as_a_graph(random_model: Path) -> None:
    with pytest.raises(ArtifactError, match="torch has no architecture for a network that was"):
        engines.load(random_model, Options(engine="torch"))


class Wrong:
    """A network that computes other features than it should."""

    engine, precision, device = "openvino", "float32", "cpu"
    batches = (1,)

    def __init__(self, found: Artifact, *rest: object) -> None:
        self.dimension = found.dimension

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.ones((len(pixels), self.dimension), np.float32)


class Refuses:
    def __init__(self, found: Artifact, *rest: object) -> None:
        raise ArtifactError("this processor is too old")


def test_auto_passes_over_an_engine_that_computes_other_codes(
    random_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(openvino_network, "OpenVINONetwork", Wrong)
    model = engines.load(random_model)
    assert model.network.engine == "onnxruntime"
    why, failed = model.reason.split("; ", 1)
    assert why == "the fastest available"
    assert failed.startswith("openvino failed: ")
    assert "golden vector 0 encodes to" in failed
    assert failed in caplog.text


def test_auto_passes_over_an_engine_that_cannot_load_the_network(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_network, "OpenVINONetwork", Refuses)
    reason = engines.load(random_model).reason
    assert reason == "the fastest available; openvino failed: this processor is too old"


def test_an_engine_that_is_asked_for_and_computes_other_codes_is_an_error(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_network, "OpenVINONetwork", Wrong)
    with pytest.raises(ArtifactError, match=r"^/.*safetensors: golden vector 0 encodes to"):
        engines.load(random_model, Options(engine="openvino"))


def test_if_no_engine_computes_the_codes_each_is_named(damaged: Path) -> None:
    edit(damaged, lambda c: c["about"]["golden"][0]["code"].reverse())
    with pytest.raises(
        ArtifactError, match=r"openvino failed: .*; onnxruntime failed: .*; torch has no architect"
    ):
        engines.load(damaged)


def test_a_model_may_be_started_before_it_has_golden_vectors(damaged: Path) -> None:
    edit(damaged, lambda c: c["about"].pop("golden"))
    model = engines.start(artifact.load(damaged))
    assert model.features(noise(model.rules, 1)).shape == (1, 144)
    with pytest.raises(ArtifactError, match="no golden vectors"):
        engines.load(damaged)


def test_an_old_model_runs_in_torch(old: Path) -> None:
    model = engines.load(old)
    assert model.network.engine == "torch"
    assert model.id == artifact.load(SHIPPED).id
    assert "openvino needs the graph of the network, which the model lacks" in model.reason
    pixels = noise(model.rules, 3)
    assert near(model.features(pixels), engines.load(SHIPPED).features(pixels))


def test_an_old_model_without_torch_says_how_to_upgrade_it(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_torch(monkeypatch)
    with pytest.raises(ArtifactError) as raised:
        engines.load(old)
    assert engines.UPGRADE in str(raised.value)
    assert "python -m trainer upgrade DIR" in str(raised.value)
    assert "python -m trainer upgrade --database URL" in str(raised.value)
    with pytest.raises(ArtifactError, match="upgrade it where"):
        engines.load(old, Options(engine="torch"))


def test_without_a_cuda_device_the_processor_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    hide = {"cpu": "CPUExecutionProvider", "cuda": "NoSuchProvider"}
    monkeypatch.setattr(onnxruntime_network, "PROVIDERS", hide)
    model = engines.load(SHIPPED, Options(device="cuda"))
    assert (model.network.engine, model.network.device) == ("openvino", "cpu")
    assert "torch sees no CUDA device; this build of ONNX Runtime has no" in model.reason
    with pytest.raises(ArtifactError, match=r"no engine can run .*torch sees no CUDA device"):
        engines.load(SHIPPED, Options(engine="torch", device="cuda"))
    with pytest.raises(ArtifactError, match="install onnxruntime-gpu"):
        engines.load(SHIPPED, Options(engine="onnxruntime", device="cuda"))


@pytest.fixture
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    if not openvino_network.supports("bfloat16"):
        pytest.skip("the processor has no bfloat16")


@pytest.mark.usefixtures("with_bfloat16")
def test_auto_computes_in_the_precision_of_the_model(tmp_path: Path) -> None:
    make_artifact(tmp_path, precision="bfloat16")
    model = engines.load(tmp_path)
    assert (model.network.precision, model.reason) == ("bfloat16", "the fastest available")
    exact = engines.load(tmp_path, Options(precision="float32"))
    assert (exact.network.precision, exact.reason) == ("float32", "the fastest available")
    pixels = noise(model.rules, 8)
    rounded, right = model.features(pixels), exact.features(pixels)
    assert not near(rounded, right)
    assert near(rounded, right, 0.05)


@pytest.mark.usefixtures("with_bfloat16")
def test_a_precision_that_is_asked_for_is_taken(random_model: Path) -> None:
    found = artifact.load(random_model)
    assert engines.start(found).network.precision == "float32"
    assert engines.start(found, Options(precision="bfloat16")).network.precision == "bfloat16"


def test_a_processor_that_rounds_otherwise_computes_in_float32_and_says_so(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = openvino_network.OpenVINONetwork

    class RoundsOtherwise(whole):  # type: ignore[valid-type, misc]
        def __init__(self, found: Artifact, precision: str, threads: int, streams: int) -> None:
            super().__init__(found, "float32", threads, streams)
            self.precision = precision

        def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            found = super().features(pixels)
            return -found if self.precision == "bfloat16" else found

    monkeypatch.setattr(openvino_network, "supports", lambda precision: True)
    monkeypatch.setattr(openvino_network, "OpenVINONetwork", RoundsOtherwise)
    model = engines.load(random_model, Options(precision="bfloat16"))
    assert (model.network.engine, model.network.precision) == ("openvino", "float32")
    assert model.reason.startswith("the fastest available; openvino in bfloat16 failed: ")
    with pytest.raises(ArtifactError, match="golden vector 0 encodes to"):
        engines.load(random_model, Options("openvino", "bfloat16"))


def test_a_processor_without_bfloat16_computes_in_float32_and_says_so(
    random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_network, "supports", lambda precision: precision == "float32")
    model = engines.load(random_model, Options(precision="bfloat16"))
    assert model.network.precision == "float32"
    assert model.reason == ("the fastest available, in float32, because it has no bfloat16 here")
    found = replace(artifact.load(random_model), precision="bfloat16")
    started: Model = engines.start(found)
    assert (started.network.precision, started.reason) == ("float32", model.reason)


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_engines_that_compute_in_float32_only_say_so(
    engine: Any, random_model: Path, torch_model: Path
) -> None:
    folder = torch_model if engine == "torch" else random_model
    model = engines.load(folder, Options(engine=engine, precision="bfloat16"))
    assert model.network.precision == "float32"
    assert model.reason == "requested, in float32, because it has no bfloat16 here"
