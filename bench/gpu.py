"""What waits for a card, most valuable first; done steps are not done again.

    make gpu                                 results in runs/gpu
    make gpu OUT=results ARGS="--seconds 60" shorter trainings
    python -m bench.gpu --device cpu --seconds 2 --batch 16 --out /tmp/x
                                             the same steps without a card

GPQ_DATA is a folder with the packs cifar10-jpeg.tar.xz and tinyimagenet64-*.zip, or with what
is in them; a step whose data is not there is left out, and done when it is. Every training is
as long as --seconds allows, by the rate measured first. Needs torch, numpy, Pillow,
safetensors, tqdm and pytest; installs nothing. With the service's packages on PYTHONPATH
(`pip install --target` them where there is a network), POST /search is measured too.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.data import cifar10, tinyimagenet

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "models" / "photos"
SCANS = (10_000_000, 100_000_000, 1_000_000_000)
SERVICE_PACKAGES = ("fastapi", "sqlalchemy", "uvicorn", "pydantic_settings", "httpx", "alembic")
SEEDS = (1, 2)
DRAWS = range(5)
NESTED = ("--bits", "12", "24", "32")
BATCH = ("--batch-labelled", "128", "--batch-unlabelled", "512")


@dataclass(frozen=True)
class Training:
    """One model: options of train and of evaluate, and how its folder of data is found."""

    name: str
    data: Callable[[Path], Path | None]
    train: tuple[str, ...]
    dataset: str = "folder"
    evaluate_data: Callable[[Path], Path | None] | None = None


def trainings() -> list[Training]:
    """In the order of their worth."""
    modern = ("--bits", "48", "--held-out", "0", *BATCH)
    protocol_1 = [
        Training("cifar10", cifar10, modern, "cifar10"),
        Training("cifar10-from-photos", cifar10, (*modern, "--init", str(PHOTOS)), "cifar10"),
    ]
    photos = [
        Training(
            f"photos-{labels}",
            lambda out, labels=labels: tinyimagenet(out, labels),
            ("--bits", "48", "--size", "64", "--held-out", "0", *BATCH),
            evaluate_data=lambda out: tinyimagenet(out, "search"),
        )
        for labels in ("all", "100")
    ]
    unseen = [
        Training(f"unseen-{draw}", cifar10, modern, f"cifar10-unseen-{draw}") for draw in DRAWS
    ]
    seeds = [
        Training(f"cifar10-seed-{seed}", cifar10, (*modern, "--seed", str(seed)), "cifar10")
        for seed in SEEDS
    ]
    paper = ("--bits", "48", "--recipe", "paper", "--network", "vgg", "--held-out", "0")
    return [
        *protocol_1,
        *photos,
        *unseen,
        *seeds,
        Training("cifar10-paper", cifar10, paper, "cifar10"),
    ]


def tests(options: argparse.Namespace) -> dict[str, object]:
    """Every test that needs a card."""
    if options.device == "cpu":
        return {"skipped": "no card asked for"}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default"]
    groups = [["-m", "cuda", "tests/cuda"]]
    if importlib.util.find_spec("hypothesis"):
        groups.append(["tests/test_cuda_scan.py"])
    for group in groups:
        if subprocess.run([*command, *group], cwd=ROOT).returncode:
            sys.exit("error: a CUDA test failed; nothing else is run")
    return {"passed": groups}


def scan(rows: int, options: argparse.Namespace) -> dict[str, object]:
    """The CUDA scan of so many codes; with the sizes of its programs where it is tuned."""
    path = options.out / f"gpu-scan-{rows}.json"
    command = [sys.executable, "-m", "bench.gpuscan", "--device", options.device]
    command += ["--rows", str(rows), "--out", str(path)]
    if options.device == "cpu":
        command += ["--queries", "1", "4", "--k", "10", "--repeats", "1"]
        command[command.index("--rows") + 1] = str(rows // 100_000)
    elif rows == SCANS[1]:
        command.append("--tune")
    subprocess.run(command, cwd=ROOT, check=True)
    return {"result": path.name}


def post(options: argparse.Namespace) -> dict[str, object] | None:
    """POST /search of a whole service; None where its packages are not there."""
    if not all(map(importlib.util.find_spec, SERVICE_PACKAGES)):
        return None
    path = options.out / "gpu-post.json"
    command = [sys.executable, "-m", "bench.post", "--out", str(path)]
    if options.device == "cpu":
        command += ["--rows", "1000", "--seconds", "1"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return {"result": path.name}


def rate(options: argparse.Namespace) -> dict[str, object]:
    """Steps a second of the default networks, and the full step against the bare network;
    compiled too, where the machine has what that needs."""
    runs: list[dict[str, object]] = []
    for backend in ("", "inductor"):
        path = options.out / f"train-{backend or 'plain'}.json"
        command = [sys.executable, "-m", "bench.train", "--device", options.device]
        command += ["--out", str(path), "--steps", "1" if options.device == "cpu" else "50"]
        done = subprocess.run([*command, "--compile", backend], cwd=ROOT, stdout=subprocess.DEVNULL)
        if done.returncode == 0:
            runs += json.loads(path.read_text())["runs"]
    return {"runs": runs}


def train(training: Training, options: argparse.Namespace) -> dict[str, object] | None:
    """Train and measure; None where the data, or the model it starts from, is not there."""
    data = training.data(options.out)
    searched = training.evaluate_data(options.out) if training.evaluate_data else data
    if data is None or searched is None:
        return None
    if str(PHOTOS) in training.train and not (PHOTOS / "config.json").is_file():
        return None
    model = options.out / training.name
    command = [sys.executable, "-m", "trainer", "train", "--dataset", training.dataset]
    command += ["--data", str(data), "--out", str(model), "--device", options.device]
    command += [*length(training, options), *training.train]
    if options.batch:
        batch = str(options.batch)
        command += ["--batch-labelled", batch, "--batch-unlabelled", batch]
    going_on = (model / "checkpoint.pt").is_file()
    command.append("--resume" if going_on else "--overwrite")
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True)
    seconds = round(time.monotonic() - started, 1)
    command = [sys.executable, "-m", "trainer", "evaluate", "--json", "--write"]
    command += ["--dataset", training.dataset, "--data", str(searched), "--model", str(model)]
    command += ["--device", options.device, *(() if "paper" in training.train else NESTED)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    (model / "checkpoint.pt").unlink()  # four times the model; what is done is not resumed
    return {
        "train_seconds": seconds,
        "resumed": going_on,
        "measured": [json.loads(line) for line in done.stdout.splitlines()],
    }


def length(training: Training, options: argparse.Namespace) -> list[str]:
    """As many steps as fit into --seconds by the measured rate, compiled where that is faster."""
    size = 64 if "64" in training.train else 32
    if "paper" in training.train:
        return ["--steps", "3000"]  # as published
    runs = json.loads((options.out / "rate.json").read_text())["runs"]
    same = [run for run in runs if run["size"] == size and run["recipe"] == "modern"]
    fastest = min(same, key=lambda run: run["seconds_a_step"])
    pictures = 2 * options.batch if options.batch else sum(map(int, BATCH[1::2]))
    seconds = fastest["seconds_a_step"] * pictures / fastest["batch"]
    compiled = ["--compile", fastest["compile"]] if fastest["compile"] else []
    return ["--steps", str(max(2, int(options.seconds / seconds))), *compiled]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=165, help="a training (%(default)s)")
    parser.add_argument("--batch", type=int, help="pictures of each kind a step")
    parser.add_argument("--only", nargs="*", help="names of steps")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    if not os.environ.get("GPQ_DATA"):
        sys.exit("error: set GPQ_DATA to the folder of the data packs")

    todo: dict[str, Callable[[], dict[str, object] | None]] = {
        "tests": lambda: tests(options),
        **{f"scan-{rows}": lambda rows=rows: scan(rows, options) for rows in SCANS},
        "post": lambda: post(options),
        "rate": lambda: rate(options),
        **{t.name: lambda t=t: train(t, options) for t in trainings()},
    }
    failed: list[str] = []
    for name, step in todo.items():
        result = options.out / f"{name}.json"
        if options.only and name not in (*options.only, "rate"):
            continue
        if result.is_file():
            print(f"{name}: done before", flush=True)
            continue
        started = time.monotonic()
        try:
            found = step()
        except subprocess.CalledProcessError as error:
            print(f"{name}: failed with status {error.returncode}", flush=True)
            failed.append(name)
            continue
        if found is None:
            print(f"{name}: what it needs is not there; left out", flush=True)
            continue
        seconds = round(time.monotonic() - started, 1)
        result.write_text(json.dumps({**found, "seconds": seconds, "device": _device()}) + "\n")
        print(f"{name}: {result.read_text().strip()[:400]}", flush=True)
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    main()
