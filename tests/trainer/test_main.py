"""Tests the command line on real images."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch._dynamo import register_backend

from gpq.engine import engines
from gpq.model import artifact
from harness.images import tree
from trainer.__main__ import main
from trainer.options import config_of
from trainer.parser import parser

ROOT = Path(__file__).parent.parent.parent
SMALL = ["--width", "4", "--batch-labelled", "16", "--batch-unlabelled", "16"]


@pytest.fixture(scope="module")
def photos(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample's labeled/, and its train/ as unlabeled/, without classes."""
    root = tmp_path_factory.mktemp("photos")
    shutil.copytree(sample / "labeled", root / "labeled")
    (root / "unlabeled").mkdir()
    for path in (sample / "train").rglob("*.jpg"):
        shutil.copy(path, root / "unlabeled" / f"{path.parent.name}-{path.name}")
    return root


def train(photos: Path, out: Path, *more: str) -> int:
    return main(["train", "--data", str(photos), "--out", str(out), *more])


@pytest.mark.parametrize(("recipe", "steps"), [("paper", 250), ("modern", 100)])
def test_a_short_training_learns(
    recipe: str, steps: int, photos: Path, sample: Path, tmp_path, capsys
) -> None:
    """Half a minute of training on 500 labels finds much more than chance, which is 0.1."""
    out = tmp_path / "out"
    batches = ["--batch-labelled", "64", "--batch-unlabelled", "64"]
    more = [
        "--network",
        "resnet32",
        "--recipe",
        recipe,
        "--steps",
        str(steps),
        "--width",
        "12",
        "--bits",
        "48",
        *batches,
    ]
    assert train(photos, out, *more) == 0
    capsys.readouterr()
    arguments = ["--model", str(out), "--data", str(sample), "--json", "--write"]
    assert main(["evaluate", *arguments]) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["mAP_tie_aware"] > 0.14
    assert measured["n_query"] == 300
    assert measured["n_database"] == 1000
    assert measured["bits"] == 48
    assert {"mAP", "unique_codes", "model"} <= set(measured)

    config = artifact.read_config(out)
    assert config["format"] == 4
    assert config["compute"]["graph"] == artifact.digest((out / "network.onnx").read_bytes())
    model = engines.load(out)
    assert model.network.engine != "torch"
    about = model.about
    assert measured["model"] == model.id
    assert about["measured"]["mAP_tie_aware"] == measured["mAP_tie_aware"]
    assert about["training"]["recipe"] == recipe
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    log = [line for line in lines if "held_out_mAP" not in line]
    assert len(lines) - len(log) >= (20 if recipe == "modern" else 0)
    of_trained = "that were trained on" in (out / "report.html").read_text()
    assert of_trained == (recipe == "paper")
    assert log[-1]["step"] == steps
    if recipe == "paper":  # in 100 steps of modern, L_cls wavers more than it falls
        assert log[-1]["cls"] < log[0]["cls"]
    else:
        checked = [line["held_out_mAP"] for line in lines if "held_out_mAP" in line]
        assert checked[-1] > checked[0] + 0.01


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("resnet32", 32, 0.1)),
        (["--size", "64"], ("resnet64", 64, 0.1)),
        (["--recipe", "paper"], ("vgg", 32, 0.0)),
        (["--recipe", "paper", "--network", "cnn-f", "--held-out", "0.2"], ("cnn-f", 224, 0.2)),
    ],
)
def test_defaults_are_the_recipes(words: list[str], expected: tuple[str, int, float]) -> None:
    options = parser().parse_args(["train", "--data", "x", "--out", "y", *words])
    config = config_of(options, "", "")
    assert (config.network, config.size, config.held_out) == expected


def test_the_folder_of_a_training_is_measured_by_its_own_classes(
    random_model: Path, photos: Path, capsys
) -> None:
    assert main(["evaluate", "--model", str(random_model), "--data", str(photos), "--json"]) == 0
    printed = capsys.readouterr()
    assert "no separate queries: each of 500 labelled images" in printed.err
    assert json.loads(printed.out)["mAP_tie_aware"] < 0.3  # of ten classes, not of two


def test_a_stopped_run_resumes_to_the_same_model(photos: Path, tmp_path: Path) -> None:
    """SIGINT leaves a checkpoint. The resumed run ends with the model of an uninterrupted one."""
    command = [sys.executable, "-m", "trainer", "train", "--data", str(photos), *SMALL]
    command += ["--steps", "160", "--out", str(tmp_path / "broken")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "broken" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "continue with --resume" in errors
    assert not (tmp_path / "broken" / "config.json").exists()

    subprocess.run([*command, "--resume"], cwd=ROOT, env=environment, check=True)
    whole = [*command[:-1], str(tmp_path / "whole")]
    subprocess.run(whole, cwd=ROOT, env=environment, check=True)
    assert engines.load(tmp_path / "broken").id == engines.load(tmp_path / "whole").id


def test_resume_refuses_another_run_and_init_starts_from_an_artifact(
    photos: Path, tmp_path: Path, capsys
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(photos, first, *SMALL, "--steps", "2") == 0
    assert train(photos, first, *SMALL, "--steps", "3", "--resume") == 1
    assert "was made with steps=2" in capsys.readouterr().err
    before = (first / "model.safetensors").read_bytes()
    assert train(photos, first, *SMALL, "--steps", "2") == 1
    assert "has checkpoint.pt and model.safetensors of another run" in capsys.readouterr().err
    assert (first / "model.safetensors").read_bytes() == before
    assert train(photos, second, *SMALL, "--steps", "2", "--init", str(first)) == 0
    assert train(photos, second, *SMALL, "--steps", "2", "--overwrite") == 0
    assert engines.load(second).about["training"]["started_from"] is None
    assert train(photos, second, *SMALL, "--steps", "2", "--init", str(first), "--overwrite") == 0
    assert "--init" not in capsys.readouterr().err
    other = ["--size", "48", "--overwrite"]
    assert train(photos, second, *SMALL, "--steps", "2", "--init", str(first), *other) == 0
    printed = capsys.readouterr().err
    assert "pixels a side" in printed and "2/2" in printed  # the progress bar reaches its end
    training = engines.load(second).about["training"]
    assert training["started_from"]["id"] == engines.load(first).id
    assert training["started_from"]["training"]["steps"] == 2
    torch.save({"weights": torch.zeros(1)}, first / "checkpoint.pt")
    assert train(photos, first, *SMALL, "--steps", "2", "--resume") == 1
    assert "is not a checkpoint of this version" in capsys.readouterr().err
    (first / "checkpoint.pt").write_bytes(b"damaged")
    assert train(photos, first, *SMALL, "--steps", "2", "--resume") == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "/nowhere", "--out", "x"], "/nowhere/labeled is not a folder"),
        (["train", "--data", "/nowhere", "--out", "x", "--dataset", "cifar10"], "not CIFAR-10"),
        (["train", "--data", "/no", "--out", "/dev/null"], "/dev/null is a file"),
        (["train", "--data", "/no", "--out", "x", "--resume"], "there is no x/checkpoint.pt"),
        (["train", "--data", "/no", "--out", "x", "--init", "/no"], "no finished model"),
        (["train", "--data", "/no", "--out", "x", "--held-out", "1"], "give a share from 0"),
        (["train", "--data", "/no", "--out", "x", "--learning-rate", "0"], "number above 0"),
        (["train", "--data", "/no", "--out", "x", "--learning-rate", "nan"], "number above 0"),
        (
            ["train", "--data", "/no", "--out", "x", "--lambda1", "nan"],
            "lambda1 nan: give a number",
        ),
        (
            ["train", "--data", "/no", "--out", "x", "--class-weight", "-1"],
            "class-weight -1.0: give a number",
        ),
        (
            ["train", "--data", "/no", "--out", "x", "--recipe", "modern", "--class-weight", "1"],
            "class-weight is only for --recipe distilled",
        ),
        (
            ["train", "--data", "/no", "--out", "x", "--lambda2", "-1"],
            "lambda2 -1.0: give a number",
        ),
        (["train", "--data", "/no", "--out", "x", "--compile", "none"], "--compile none: "),
        (
            ["train", "--data", "/no", "--out", "x", "--pretrained", "--network", "vgg"],
            "efficientnet-lite2 only, not for vgg",
        ),
        (
            ["train", "--data", "/no", "--out", "x", "--network", "alexnet", "--size", "32"],
            "--size 32 is too small for network alexnet",
        ),
        (
            ["train", "--data", "/no", "--out", "x", "--network", "resnet32", "--size", "2048"],
            "--network resnet32 --size 2048: no service could run the network: ",
        ),
        (["train", "--data", "/no", "--out", "x", "--details", "12"], "leaves none"),
        (
            ["train", "--data", "/no", "--out", "x", "--variant", "gpq-t"],
            "is only for --recipe paper",
        ),
        (["train", "--data", "/no.csv", "--out", "x"], "/no.csv: "),
        (["train", "--data", "/no", "--out", "x", "--dataset", "nuswide"], "is not NUS-WIDE"),
        (
            ["evaluate", "--data", "/nowhere", "--model", "/nowhere"],
            "no finished model in this folder",
        ),
    ],
)
def test_wrong_input_is_one_clear_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert len(printed.splitlines()) == 1


def test_a_seed_beyond_the_generators_is_wrong_usage(capsys) -> None:
    for seed in ("-1", str(2**63)):
        with pytest.raises(SystemExit):
            main(["train", "--data", "x", "--out", "y", "--seed", seed])
        assert f"{seed} is not an integer from 0" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path, capsys) -> None:
    images = tree(tmp_path, "labeled/a/1.png", "labeled/b/1.png")
    for out in ("/proc/none", "/dev/null/none"):
        assert train(images, Path(out)) == 1
        assert f"error: {out} cannot be written: " in capsys.readouterr().err


def test_a_run_reports_what_it_learns_from_and_why_it_writes_no_report(
    tmp_path: Path, capsys
) -> None:
    images = tree(tmp_path / "images", "labeled/a/1.png", "labeled/b/1.png", "unlabeled/1.png")
    assert train(images, tmp_path / "out", *SMALL, "--steps", "1") == 0
    printed = capsys.readouterr().err
    assert "2 labelled, of 2 classes, and 1 unlabelled; held out: 0 labelled" in printed
    assert "no report is written: nothing to search for: " in printed
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_backend_without_its_compiler_is_one_clear_line(tmp_path: Path, capsys) -> None:
    def no_compiler(*_: object) -> None:
        raise RuntimeError("no compiler here")

    register_backend(no_compiler)
    assert train(tmp_path, tmp_path / "out", "--compile", "no_compiler") == 1
    printed = capsys.readouterr().err
    assert "error: --compile no_compiler: backend='no_compiler' raised: " in printed
    assert "no compiler here" in printed and len(printed.splitlines()) == 1


def test_a_network_without_torchvision_is_one_clear_line(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert train(tmp_path, tmp_path / "out", "--network", "resnet18") == 1
    assert capsys.readouterr().err == (
        "error: network 'resnet18' needs torchvision: install the extra `train`\n"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_without_a_cuda_device(photos: Path, tmp_path: Path, capsys) -> None:
    assert train(photos, tmp_path, "--device", "cuda") == 1
    assert "there is no CUDA device" in capsys.readouterr().err


def test_a_full_disk_at_the_end_is_a_clear_error_and_loses_nothing(
    photos: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is written before the artifact, so the run can continue with more space."""
    out, steps = tmp_path / "out", ["--steps", "1", *SMALL]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(artifact, "_replace", full)
        assert train(photos, out, *steps) == 1
    assert f"{out} cannot be written: [Errno 28] No space left" in capsys.readouterr().err
    assert train(photos, out, *steps, "--resume") == 0
    assert engines.load(out).bits == 48


def test_a_full_disk_at_the_report_is_a_clear_error(
    random_model: Path, tmp_path: Path, capsys
) -> None:
    images = tree(tmp_path / "images", *(f"{c}/{n}.png" for c in "ab" for n in range(3)))
    model = shutil.copytree(random_model, tmp_path / "model")
    (model / "report.html").symlink_to("/dev/full")
    assert main(["report", "--model", str(model), "--data", str(images)]) == 1
    assert f"{model} cannot be written: [Errno 28] No space left" in capsys.readouterr().err
