"""Tests training where torch is the only engine, as on a machine that is borrowed for its GPU."""

import subprocess
import sys
from pathlib import Path

from gpq.engine import engines
from gpq.model import artifact
from harness import ROOT
from harness.images import tree

ABSENT = ("onnx", "onnxruntime", "onnxscript", "openvino")
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))\n"


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that cannot import the packages of ABSENT; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_model_is_trained_evaluated_and_reported(tmp_path: Path) -> None:
    names = [f"labeled/{name}/{n}.png" for name in "ab" for n in range(4)]
    images, out = tree(tmp_path / "images", *names), tmp_path / "out"
    small = [
        "--network",
        "resnet32",
        "--batch-labelled",
        "4",
        "--batch-unlabelled",
        "4",
        "--steps",
        "1",
        "--bits",
        "12",
    ]
    train = ["train", "--data", str(images), "--out", str(out), *small]
    shipped = str(ROOT / "models" / "cifar10")  # has a graph, which nothing can check here
    done = run(
        "from trainer.__main__ import main\n"
        f"assert main({[*train, '--init', shipped, '--teacher', shipped]!r}) == 0\n"
        f"assert main(['evaluate', '--model', {str(out)!r}, '--data', {str(images)!r}]) == 0\n"
        f"assert main(['evaluate', '--model', {shipped!r}, '--data', {str(images)!r}]) == 0\n"
    )
    assert "gets no graph, because onnx and onnxscript are not installed" in done.stderr
    assert (out / "report.html").exists()
    assert artifact.read_config(out)["format"] == 3
    assert engines.load(out).network.engine == "torch"


def test_gpu_tests_and_measurements_can_be_imported() -> None:
    run(
        "import bench.gpu, bench.gpuscan, bench.post, bench.train, pytest\n"
        "sys.exit(pytest.main(['--collect-only', '-q', '-m', 'cuda', 'tests/cuda']))"
    )
