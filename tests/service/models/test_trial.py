import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpq.engine.engines import Options
from gpq.errors import ArtifactError
from gpq.model import artifact
from harness import ROOT, commands
from harness.images import png
from harness.models import fields, make_artifact
from harness.server import Server
from service.errors import Busy
from service.models import trial
from tests import waiting


@pytest.fixture
def fake_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the module that processes on trial import as OpenVINO; this process does not."""
    module = tmp_path / "fake" / "openvino" / "__init__.py"
    module.parent.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'fake'}:{ROOT}")
    return module


def test_a_good_model_passes(tmp_path: Path) -> None:
    id = make_artifact(tmp_path)
    assert trial.load(tmp_path, Options(threads=1)) == id


def test_a_model_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path) -> None:
    make_artifact(tmp_path)
    (tmp_path / "network.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactError, match=r"network\.onnx: not the graph that config\.json"):
        trial.load(tmp_path, Options())
    (tmp_path / "config.json").unlink()
    with pytest.raises(ArtifactError, match="there is no finished model in this folder"):
        trial.load(tmp_path, Options())


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import ctypes; ctypes.string_at(0)", "the engine crashed: Segmentation fault"),
        ("import os; os.abort()", "the engine crashed: Aborted"),
        ("import os; os.kill(os.getpid(), 9)", "it was killed; it may need too much memory"),
        ("import os; os._exit(3)", "it ended with exit status 3; the log may say why"),
        ("bytearray(9 * 2**30)", "the model needs more than 8589934592 bytes of memory"),
    ],
)
def test_an_engine_that_crashes_ends_only_the_trial(
    random_model: Path, fake_engine: Path, program: str, reason: str
) -> None:
    fake_engine.write_text(program)
    with pytest.raises(ArtifactError) as caught:
        trial.load(random_model, Options())
    assert reason in str(caught.value)


@pytest.mark.parametrize("program", ["import time; time.sleep(60)", "while True: pass"])
def test_an_engine_that_hangs_is_ended(
    random_model: Path, fake_engine: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    fake_engine.write_text(program)
    monkeypatch.setattr(trial, "SECONDS", 1)
    with pytest.raises(ArtifactError, match="it took longer than 1 s"):
        trial.load(random_model, Options())


def test_what_an_engine_prints_is_not_taken_for_the_outcome(
    random_model: Path, fake_engine: Path
) -> None:
    fake_engine.write_text('print("hello"); raise ImportError("fake")')
    assert trial.load(random_model, Options()) == artifact.load(random_model).id


def test_a_trial_yields_to_the_service_and_is_killed_before_it(
    random_model: Path, fake_engine: Path
) -> None:
    fake_engine.write_text("""
import os
raise ImportError(f"niceness {os.nice(0)}, {open('/proc/self/oom_score_adj').read().strip()}")
""")
    with pytest.raises(ArtifactError, match=r"niceness \d+, 1000") as caught:
        trial.load(random_model, Options(engine="openvino"))
    assert "niceness 0" not in str(caught.value)


def test_one_model_is_tried_at_a_time(random_model: Path, fake_engine: Path) -> None:
    begun, go = fake_engine.parent / "begun", fake_engine.parent / "go"
    fake_engine.write_text(f"""
import pathlib, time
pathlib.Path({str(begun)!r}).touch()
while not pathlib.Path({str(go)!r}).exists():
    time.sleep(0.01)
raise ImportError("fake")
""")
    with ThreadPoolExecutor(1) as other:
        first = other.submit(trial.load, random_model, Options())
        waiting.until(begun.exists, seconds=60)
        with pytest.raises(Busy, match="another model is being added"):
            trial.load(random_model, Options())
        go.touch()
        assert first.result() == artifact.load(random_model).id
    assert trial.load(random_model, Options()) == first.result()  # and then the next one


def test_a_model_that_crashes_the_engine_does_not_end_the_service(
    random_model: Path, fake_engine: Path, tmp_path: Path
) -> None:
    fake_engine.write_text("""
import ctypes, sys
if "service.models.trial" in sys.orig_argv:
    ctypes.string_at(0)
raise ImportError("fake")
""")
    other = tmp_path / "other"
    make_artifact(other, seed=9)
    url = f"sqlite:///{tmp_path}/gpq.db"
    server = Server(tmp_path, model=random_model, database_url=url, image_store="none")
    server.variables = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    reason = "the model cannot be loaded: the engine crashed: Segmentation fault. Nothing was added"
    with server:
        assert server.index(png(1), ids='["a"]').status_code == 200
        refused = server.http.post("/models", files=fields(other))
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-model")
        assert refused.json()["detail"] == reason
        # Commands import from the folder that they run in.
        place = {"folder": fake_engine.parent.parent, "database_url": url, "image_store": "none"}
        command = commands.run("models", "add", str(other), **place)
        assert (command.returncode, command.stderr) == (1, f"error: {reason}\n")
        assert len(server.http.get("/models").json()["models"]) == 1
        assert server.search(png(1)).json()["results"][0]["id"] == "a"
        assert server.http.get("/stats").json()["network"]["engine"] == "onnxruntime"
