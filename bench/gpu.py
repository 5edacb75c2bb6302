"""What waits for a card, most valuable first; done steps are not done again.

    make gpu                                 results in runs/gpu, in the end docs/gpu.png
    make gpu ARGS="--minutes 9"              only what should be done by then; go on with the same
    make gpu OUT=results ARGS="--seconds 60" shorter trainings
    python -m bench.gpu --device cpu --seconds 2 --batch 16 --out /tmp/x
                                             the same steps without a card

Seconds that the steps are expected to take, of an H200 (``steps``; guessed):
    tests-scan 90, tests 60: all others that need a card
    cifar10-wide and cifar10-taught, which has its labels from it, photos-all, and unseen-0 to
    unseen-4, each --seconds for the training and 60
    rate 300: steps a second of both recipes, without a CUDA graph and compiled too; post 120
    scan-1e8 180: all numbers of queries, k = 10 and 100, and sizes of the filter's programs
    scan-1e9-all 150, scan-1e7 60
    cifar10, cifar10-from-photos, photos-100, seeds and cifar10-paper, each as the others

GPQ_DATA is a folder with the packs cifar10-jpeg.tar.xz and tinyimagenet64-*.zip, or with what
is in them; a step whose data is not there is left out, and done when it is. A training is as long
as --seconds allows, by the rate of its size, which is measured first. Needs torch, numpy, Pillow,
safetensors, tqdm and pytest, and matplotlib for the plot; installs nothing. With the service's
packages on PYTHONPATH (`pip install --target` them where there is a network), POST /search is
measured too.
"""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.data import cifar10, tinyimagenet
from harness import ROOT
from harness.models import SHIPPED

PHOTOS = ROOT / "models" / "photos"
FEWER = 500_000  # times as few codes without a card
SERVICE_PACKAGES = ("fastapi", "sqlalchemy", "uvicorn", "pydantic_settings", "httpx", "alembic")
SEEDS = (1, 2)
DRAWS = range(5)
FIRST = 3 + len(DRAWS)  # trainings
WIDE = 64  # channels of a network that only teaches
NESTED = ("--bits", "12", "24", "32")
BATCH = ("--batch-labelled", "128", "--batch-unlabelled", "512")


Run = Callable[[argparse.Namespace], dict[str, object] | None]


@dataclass(frozen=True)
class Step:
    """seconds: that it is expected to take on a card. run: gives what is to be kept, None where
    what it needs is not there; raises CalledProcessError."""

    name: str
    seconds: float
    run: Run


@dataclass(frozen=True)
class Training:
    """One model: options of train and of evaluate, and how its folder of data is found. teacher:
    the training that guesses its labels, which comes before."""

    name: str
    data: Callable[[Path], Path | None]
    train: tuple[str, ...]
    dataset: str = "folder"
    evaluate_data: Callable[[Path], Path | None] | None = None
    teacher: str = ""


def trainings() -> list[Training]:
    """In the order of their worth, the first FIRST before all else."""
    modern = ("--bits", "48", "--held-out", "0", *BATCH)
    classes = (*modern, "--network", "resnet32", "--details", "0")
    wide = Training("cifar10-wide", cifar10, (*classes, "--width", str(WIDE)), "cifar10")
    start = ("--init", str(SHIPPED), "--learning-rate", "0.002")
    taught = Training("cifar10-taught", cifar10, (*classes, *start), "cifar10", teacher=wide.name)
    photos_all, photos_100 = [
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
        wide,
        taught,
        photos_all,
        *unseen,
        Training("cifar10", cifar10, modern, "cifar10"),
        Training("cifar10-from-photos", cifar10, (*modern, "--init", str(PHOTOS)), "cifar10"),
        photos_100,
        *seeds,
        Training("cifar10-paper", cifar10, paper, "cifar10"),
    ]


def tests(options: argparse.Namespace, *groups: tuple[str, ...]) -> dict[str, object]:
    """Tests that need a card, or that are worth more on one."""
    if options.device == "cpu":
        return {"skipped": "no card asked for"}
    for group in groups:
        command = [sys.executable, "-m", "pytest", "-q", "-W", "default", *group]
        if subprocess.run(command, cwd=ROOT).returncode:
            sys.exit("error: a CUDA test failed; nothing else is run")
    return {"passed": groups}


def tests_scan(options: argparse.Namespace) -> dict[str, object]:
    return tests(options, ("-m", "cuda", "tests/cuda/test_scan.py"))


def tests_all(options: argparse.Namespace) -> dict[str, object]:
    others = ("-m", "cuda", "tests/cuda", "--ignore", "tests/cuda/test_scan.py")
    with_hypothesis = importlib.util.find_spec("hypothesis") is not None
    return tests(options, others, *[("tests/gpq/scan/test_cuda_scan.py",)] * with_hypothesis)


def scan(rows: int, *more: str) -> Run:
    """The CUDA scan of so many codes."""

    def run(options: argparse.Namespace) -> dict[str, object]:
        path = options.out / f"gpu-scan-{rows}.json"
        command = [sys.executable, "-m", "bench.gpuscan", "--device", options.device]
        command += ["--out", str(path)]
        if options.device == "cpu":
            command += ["--rows", str(rows // FEWER), "--repeats", "1"]
            command += ["--queries", "1", "4", "--k", "10"]
        else:
            command += ["--rows", str(rows), *more]
        subprocess.run(command, cwd=ROOT, check=True)
        return {"result": path.name}

    return run


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


def rates(options: argparse.Namespace) -> dict[str, object]:
    """Steps a second of the default networks, and the full step against the bare network; without
    a CUDA graph too, and compiled, where the machine has what that needs."""
    runs: list[dict[str, object]] = []
    kinds = {"plain": (), "launched": ("--launched",), "inductor": ("--compile", "inductor")}
    for name, more in kinds.items():
        path = options.out / f"train-{name}.json"
        if _rate(path, options, *more).returncode == 0:
            runs += json.loads(path.read_text())["runs"]
    return {"runs": runs}


def _rate(
    path: Path, options: argparse.Namespace, *more: str
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "bench.train", "--device", options.device]
    command += ["--out", str(path), *more]
    command += ["--steps", "1", "--rounds", "2"] if options.device == "cpu" else ["--steps", "20"]
    if options.batch:
        command += ["--batch", str(options.batch)]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def train(training: Training, options: argparse.Namespace) -> dict[str, object] | None:
    """Train and measure; None where the data, or the model it starts from, is not there."""
    data = training.data(options.out)
    searched = training.evaluate_data(options.out) if training.evaluate_data else data
    if data is None or searched is None:
        return None
    if training.teacher and not (options.out / training.teacher / "config.json").is_file():
        return None
    model = options.out / training.name
    command = [sys.executable, "-m", "trainer", "train", "--dataset", training.dataset]
    command += ["--data", str(data), "--out", str(model), "--device", options.device]
    command += [*length(training, options), *training.train]
    if training.teacher:
        command += ["--teacher", str(options.out / training.teacher)]
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
    """As many steps as fit into --seconds by the rate of this size."""
    if "paper" in training.train:
        return ["--steps", "3000"]  # as published
    size, width = (_option(training, name) for name in ("--size", "--width"))
    path = options.out / f"train-{size}-{width}.json"
    if not path.is_file():
        network = ("--sizes", size, "--width", width)
        _rate(path, options, "--recipes", "modern", *network).check_returncode()
    (run,) = json.loads(path.read_text())["runs"]
    pictures = 2 * options.batch if options.batch else sum(map(int, BATCH[1::2]))
    seconds = run["seconds_a_step"] * pictures / run["batch"]
    return ["--steps", str(max(2, int(options.seconds / seconds)))]


def _option(training: Training, name: str) -> str:
    """Its value, 32 by default: pixels, and channels."""
    given = training.train
    return given[given.index(name) + 1] if name in given else "32"


def steps(options: argparse.Namespace) -> list[Step]:
    """All there are, in the order of their worth."""

    learnt = [Step(t.name, options.seconds + 60, partial(train, t)) for t in trainings()]
    return [
        Step("tests-scan", 90, tests_scan),
        Step("tests", 60, tests_all),
        *learnt[:FIRST],
        Step("rate", 300, rates),
        Step("post", 120, post),
        Step("scan-1e8", 180, scan(10**8, "--tune")),
        Step("scan-1e9-all", 150, scan(10**9)),
        Step("scan-1e7", 60, scan(10**7)),
        *learnt[FIRST:],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=165, help="a training (%(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="for all (no limit)")
    parser.add_argument("--batch", type=int, help="pictures of each kind a step")
    parser.add_argument("--only", nargs="*", help="names of steps")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    if not os.environ.get("GPQ_DATA"):
        sys.exit("error: set GPQ_DATA to the folder of the data packs")
    end = time.monotonic() + 60 * options.minutes
    failed = [step.name for step in steps(options) if not done(step, end, options)]
    plot = ROOT / "docs" / "gpu.png" if options.device == "cuda" else options.out / "gpu.png"
    command = [sys.executable, "-m", "bench.gpuscan", "--draw", str(options.out)]
    if any(options.out.glob("gpu-scan-*.json")):
        subprocess.run([*command, "--plot", str(plot)], cwd=ROOT)  # where there is matplotlib
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


def done(step: Step, end: float, options: argparse.Namespace) -> bool:
    """False where it failed; it may not be its turn, or there is no time for it."""
    result = options.out / f"{step.name}.json"
    if options.only and step.name not in options.only:
        return True
    if result.is_file():
        print(f"{step.name}: done before", flush=True)
        return True
    started = time.monotonic()
    if started + step.seconds > end:
        print(f"{step.name}: no time left for its {step.seconds:.0f} seconds", flush=True)
        return True
    try:
        found = step.run(options)
    except subprocess.CalledProcessError as error:
        print(f"{step.name}: failed with status {error.returncode}", flush=True)
        return False
    if found is None:
        print(f"{step.name}: what it needs is not there; left out", flush=True)
        return True
    seconds = round(time.monotonic() - started, 1)
    result.write_text(json.dumps({**found, "seconds": seconds, "device": _device()}) + "\n")
    print(f"{step.name}: {result.read_text().strip()[:400]}", flush=True)
    return True


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    main()
