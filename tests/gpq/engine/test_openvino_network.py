import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpq.engine import openvino_network
from gpq.engine.openvino_network import OpenVINONetwork
from gpq.errors import ArtifactError
from gpq.model import artifact
from gpq.model.graph import GRAPH
from harness import ROOT

# Loads a model and reports what it did: sockets and processes that Python opens and starts, those
# that the operating system knows at the end, and modules that should not be there.
QUIET = """
import os, sys
from pathlib import Path

seen = []
NAMES = ("socket.", "subprocess.", "os.fork", "os.exec", "os.spawn", "os.posix_spawn", "os.system")

def note(event, arguments):
    if event.startswith(NAMES):
        seen.append(event)

sys.addaudithook(note)
import numpy as np
from gpq.engine import engines

model = engines.load(Path(sys.argv[1]), engines.Options(engine=sys.argv[2]))
model.features(np.zeros((3, 3, 32, 32), np.uint8))
assert model.network.engine == sys.argv[2]
for number in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink("/proc/self/fd/" + number)
    except OSError:
        continue
    if target.startswith("socket:"):
        seen.append(target)
for children in Path("/proc/self/task").glob("*/children"):
    seen += children.read_text().split()
telemetry = sys.modules.get("openvino_telemetry")
print(seen, telemetry, sorted(os.listdir(os.environ["HOME"])))
"""


def test_openvino_is_there() -> None:
    assert openvino_network.missing() == ""


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert openvino_network.missing() == "OpenVINO is not installed"


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_a_package_that_does_not_start_is_named(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def core() -> None:
        raise error("libtbb.so.12: no such file\nand more")

    monkeypatch.setattr(openvino_network, "core", core)
    assert openvino_network.missing() == "OpenVINO does not start: libtbb.so.12: no such file"


class Processor:
    """A core of OpenVINO on a processor with these capabilities."""

    def __init__(self, capabilities: list[str]) -> None:
        self.capabilities = capabilities

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return self.capabilities


def test_bfloat16_needs_a_processor_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in ((["FP32", "BF16"], True), (["FP32", "INT8"], False)):
        monkeypatch.setattr(openvino_network, "core", lambda c=capabilities: Processor(c))
        assert openvino_network.supports("bfloat16") is expected
        assert openvino_network.supports("float32")


@pytest.mark.parametrize("precision", artifact.PRECISIONS)
@pytest.mark.parametrize(("threads", "streams"), [(1, 1), (2, 1), (1, 2)])
def test_a_network_is_compiled_as_it_was_asked_for(
    precision: artifact.Precision, threads: int, streams: int, random_model: Path
) -> None:
    if not openvino_network.supports(precision):
        pytest.skip("the processor has no bfloat16")
    network = OpenVINONetwork(artifact.load(random_model), precision, threads, streams)
    from openvino import PartialShape, Type

    types = {"float32": Type.f32, "bfloat16": Type.bf16}
    compiled = network._compiled
    assert network.precision == precision
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == types[precision]
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads * streams
    assert compiled.get_property("NUM_STREAMS") == streams
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    assert compiled.input().element_type == Type.u8
    assert compiled.input().partial_shape == PartialShape([-1, 3, 32, 32])


def test_threads_that_compute_in_turn_share_a_request(random_model: Path) -> None:
    network = OpenVINONetwork(artifact.load(random_model), "float32", 1, 1)
    for size in (1, 3, 70):
        network.features(np.zeros((size, 3, 32, 32), np.uint8))
    assert network._free.qsize() == 1


def test_a_graph_that_it_cannot_run_is_an_error_of_the_artifact(
    random_model: Path, tmp_path: Path
) -> None:
    found = artifact.load(random_model)
    (tmp_path / GRAPH).write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"network\.onnx: OpenVINO cannot run it: "):
        OpenVINONetwork(replace(found, folder=tmp_path), "float32", 1, 1)


def test_features_of_another_number_are_an_error_of_the_artifact(random_model: Path) -> None:
    found = artifact.load(random_model)
    fewer = replace(found, codebook=type(found.codebook)(found.codebook.Z[:3]))
    with pytest.raises(ArtifactError, match=r"it computes \(32, 144\) for 32 images"):
        OpenVINONetwork(fewer, "float32", 1, 1)


def without_network() -> list[str]:
    """Returns the words before a command that take the network from it, if that is permitted."""
    alone = ["unshare", "--net"]
    try:
        permitted = subprocess.run([*alone, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return []
    return alone if permitted.returncode == 0 else []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_engine_calls_no_server_starts_no_process_and_writes_nothing_at_home(
    engine: str, random_model: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*without_network(), sys.executable, "-c", QUIET, str(random_model), engine],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[] None []\n"
    assert not list(tmp_path.iterdir())


def test_telemetry_cannot_be_imported() -> None:
    openvino_network.core()
    assert sys.modules["openvino_telemetry"] is None
    with pytest.raises(ImportError):
        import openvino_telemetry  # noqa: F401
