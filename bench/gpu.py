"""Runs all tests, measurements and trainings that need a CUDA device, most valuable first.

    make gpu                                 writes to runs/gpu, and draws docs/gpu.png at the end
    make gpu ARGS="--minutes 9"              runs the tasks that should end in 9 minutes; repeat it
                                             for the others
    make gpu OUT=results ARGS="--seconds 60" shorter trainings
    python -m bench.gpu --device cpu --seconds 2 --batch 16 --out /tmp/x
                                             small versions of the tasks without a CUDA device

A task with a result in the output folder is not run again. These are the tasks, with a guess of
the seconds that each takes on an H200 (``tasks``):
    tests-scan 90, tests 60: the tests of the scan, and all others that need a CUDA device
    cifar10-lite0 (all layers of models/photos), cifar10-wide, cifar10-taught (its teacher is
    cifar10-wide), photos-all, unseen-0 to unseen-4: trainings, each --seconds and 60 for its
    evaluation
    rate 300: training steps a second of both recipes, also without a CUDA graph and compiled
    post 120: POST /search
    scan-1e8 180: the scan for all numbers of queries, k = 10 and 100, and with other block sizes
    scan-1e9-all 150, scan-1e7 60: the scan of other numbers of codes
    cifar10, cifar10-from-photos64, photos-100, cifar10-seed-1, cifar10-seed-2, cifar10-paper: more
    trainings

GPQ_DATA names a folder with the packs cifar10-jpeg.tar.xz and tinyimagenet64-*.zip, or with their
content. A task whose data is missing is left out; a later call runs it when the data is there. The
number of training steps is chosen to fit into --seconds, from the speed that is measured first.
The tasks need torch, numpy, Pillow, safetensors, tqdm and pytest, and matplotlib for the plot;
nothing is installed. To measure POST /search too, put the service's packages on PYTHONPATH, for
example with `pip install --target`.
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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.data import cifar10, tinyimagenet
from harness import ROOT
from harness.models import DEFAULT, PHOTOS64, SHIPPED

CPU_ROWS_DIVISOR = 500_000  # the CPU scans fewer codes
SERVICE_PACKAGES = ("fastapi", "sqlalchemy", "uvicorn", "pydantic_settings", "httpx", "alembic")
SEEDS = (1, 2)
DRAWS = range(5)
FIRST = 5 + len(DRAWS)  # number of trainings before the other tasks
WIDE = 64  # channels of the teacher's network
NESTED = ("--bits", "12", "24", "32")
BATCH = ("--batch-labelled", "128", "--batch-unlabelled", "512")

# Returns the results of a task, or None if something that it needs is missing. Raises
# CalledProcessError if a command fails.
Action = Callable[[argparse.Namespace], dict[str, object] | None]


@dataclass(frozen=True)
class Task:
    """Something to run on the GPU; ``seconds``: how long it is expected to take there."""

    name: str
    seconds: float
    run: Action


@dataclass(frozen=True)
class Training:
    """The training of one model.

    ``data``: returns the folder to train on, or None if it is missing; its argument is the output
    folder. ``evaluate_data``: the same for the evaluation, if it uses another folder. ``train``:
    options of `trainer train`. ``dataset``: its --dataset. ``earlier``: options that take the model
    of an earlier training, such as --teacher, and the name of that training.
    """

    name: str
    data: Callable[[Path], Path | None]
    train: tuple[str, ...]
    dataset: str = "folder"
    evaluate_data: Callable[[Path], Path | None] | None = None
    earlier: dict[str, str] = field(default_factory=dict)


def trainings() -> list[Training]:
    """Returns all trainings, most valuable first."""
    modern = ("--bits", "48", "--held-out", "0", *BATCH)
    classes = (*modern, "--network", "resnet32", "--details", "0")
    whole = ("--init", str(DEFAULT), "--freeze", "none", "--size", "128", "--details", "0")
    lite = ("--learning-rate", "0.0007", *modern, *whole)
    last = ("--freeze", "all", "--size", "128", "--views", "1", "--steps", "600", "--held-out", "0")
    few = (*last, "--bits", "48", "--init", str(DEFAULT), "--class-weight", "0.2")
    wide = Training("cifar10-wide", cifar10, (*classes, "--width", str(WIDE)), "cifar10")
    start = ("--init", str(SHIPPED), "--learning-rate", "0.002")
    taught = Training(
        "cifar10-taught", cifar10, (*classes, *start), "cifar10", earlier={"--teacher": wide.name}
    )
    lite0 = Training("cifar10-lite0", cifar10, lite, "cifar10")
    distilled = Training(
        "cifar10-lite0-distilled", cifar10, (*last, "--bits", "48"), "cifar10",
        earlier={"--init": lite0.name},
    )  # fmt: skip
    photos_all, photos_100 = [
        Training(
            f"photos-{labels}",
            lambda out, labels=labels: tinyimagenet(out, labels),
            ("--bits", "48", "--size", "64", "--held-out", "0", *BATCH),
            evaluate_data=lambda out: tinyimagenet(out, "search"),
        )
        for labels in ("all", "100")
    ]
    unseen = [Training(f"unseen-{draw}", cifar10, few, f"cifar10-unseen-{draw}") for draw in DRAWS]
    seeds = [
        Training(f"cifar10-seed-{seed}", cifar10, (*modern, "--seed", str(seed)), "cifar10")
        for seed in SEEDS
    ]
    paper = ("--bits", "48", "--recipe", "paper", "--network", "vgg", "--held-out", "0")
    return [
        lite0,
        distilled,
        wide,
        taught,
        photos_all,
        *unseen,
        Training("cifar10", cifar10, modern, "cifar10"),
        Training("cifar10-from-photos64", cifar10, (*modern, "--init", str(PHOTOS64)), "cifar10"),
        photos_100,
        *seeds,
        Training("cifar10-paper", cifar10, paper, "cifar10"),
    ]


def run_tests(options: argparse.Namespace, *groups: tuple[str, ...]) -> dict[str, object]:
    """Runs pytest once for each group of arguments. Exits if a test fails."""
    if options.device == "cpu":
        return {"skipped": "--device cpu"}
    for group in groups:
        command = [sys.executable, "-m", "pytest", "-q", "-W", "default", *group]
        if subprocess.run(command, cwd=ROOT).returncode:
            sys.exit("error: a CUDA test failed, so the other tasks are not run")
    return {"passed": groups}


def scan_tests(options: argparse.Namespace) -> dict[str, object]:
    """Runs the CUDA tests of the scan."""
    return run_tests(options, ("-m", "cuda", "tests/cuda/test_scan.py"))


def other_tests(options: argparse.Namespace) -> dict[str, object]:
    """Runs the other CUDA tests, and the scan's tests that use Hypothesis if it is installed."""
    others = ("-m", "cuda", "tests/cuda", "--ignore", "tests/cuda/test_scan.py")
    with_hypothesis = importlib.util.find_spec("hypothesis") is not None
    return run_tests(options, others, *[("tests/gpq/scan/test_cuda_scan.py",)] * with_hypothesis)


def scan(rows: int, *more: str) -> Action:
    """Returns an action that measures the CUDA scan of ``rows`` codes with more options."""

    def run(options: argparse.Namespace) -> dict[str, object]:
        path = options.out / f"gpu-scan-{rows}.json"
        command = [sys.executable, "-m", "bench.gpuscan", "--device", options.device]
        command += ["--out", str(path)]
        if options.device == "cpu":
            command += ["--rows", str(rows // CPU_ROWS_DIVISOR), "--repeats", "1"]
            command += ["--queries", "1", "4", "--k", "10"]
        else:
            command += ["--rows", str(rows), *more]
        subprocess.run(command, cwd=ROOT, check=True)
        return {"result": path.name}

    return run


def post(options: argparse.Namespace) -> dict[str, object] | None:
    """Measures POST /search; returns None if the service's packages are not installed."""
    if not all(map(importlib.util.find_spec, SERVICE_PACKAGES)):
        return None
    path = options.out / "gpu-post.json"
    command = [sys.executable, "-m", "bench.post", "--out", str(path)]
    if options.device == "cpu":
        command += ["--rows", "1000", "--seconds", "1"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return {"result": path.name}


def rates(options: argparse.Namespace) -> dict[str, object]:
    """Measures training steps beside the bare network, with both recipes and sizes.

    The steps are also measured without a CUDA graph, and compiled if torch.compile works here.
    """
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
    """Trains and evaluates a model; returns None if its data or an earlier model is missing."""
    data = training.data(options.out)
    searched = training.evaluate_data(options.out) if training.evaluate_data else data
    if data is None or searched is None:
        return None
    earlier = {option: options.out / name for option, name in training.earlier.items()}
    if not all((model / "config.json").is_file() for model in earlier.values()):
        return None
    model = options.out / training.name
    command = [sys.executable, "-m", "trainer", "train", "--dataset", training.dataset]
    command += ["--data", str(data), "--out", str(model), "--device", options.device]
    command += [*length(training, options), *training.train]
    for option, folder in earlier.items():
        command += [option, str(folder)]
    if options.batch:
        batch = str(options.batch)
        command += ["--batch-labelled", batch, "--batch-unlabelled", batch]
    resumed = (model / "checkpoint.pt").is_file()
    command.append("--resume" if resumed else "--overwrite")
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True)
    seconds = round(time.monotonic() - started, 1)
    command = [sys.executable, "-m", "trainer", "evaluate", "--json", "--write"]
    command += ["--dataset", training.dataset, "--data", str(searched), "--model", str(model)]
    command += ["--device", options.device, *(() if "paper" in training.train else NESTED)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    (model / "checkpoint.pt").unlink()  # four times as large as the model, and not needed
    return {
        "train_seconds": seconds,
        "resumed": resumed,
        "measured": [json.loads(line) for line in done.stdout.splitlines()],
    }


def length(training: Training, options: argparse.Namespace) -> list[str]:
    """Returns --steps so that the training takes about --seconds, from a measured speed."""
    if "paper" in training.train:
        return ["--steps", "3000"]  # as in the paper
    if "--steps" in training.train:
        return []
    size, width = (_option(training, name) for name in ("--size", "--width"))
    path = options.out / f"train-{size}-{width}.json"
    if not path.is_file():
        network = ("--sizes", size, "--width", width)
        _rate(path, options, "--recipes", "modern", *network).check_returncode()
    (run,) = json.loads(path.read_text())["runs"]
    images = 2 * options.batch if options.batch else sum(map(int, BATCH[1::2]))
    seconds = run["seconds_a_step"] * images / run["batch"]
    return ["--steps", str(max(2, int(options.seconds / seconds)))]


def _option(training: Training, name: str) -> str:
    """Returns the value of an option of `trainer train`; --size and --width are 32 by default."""
    given = training.train
    return given[given.index(name) + 1] if name in given else "32"


def tasks(options: argparse.Namespace) -> list[Task]:
    """Returns all tasks, most valuable first."""
    models = [Task(t.name, options.seconds + 60, partial(train, t)) for t in trainings()]
    return [
        Task("tests-scan", 90, scan_tests),
        Task("tests", 60, other_tests),
        *models[:FIRST],
        Task("rate", 300, rates),
        Task("post", 120, post),
        Task("scan-1e8", 180, scan(10**8, "--tune")),
        Task("scan-1e9-all", 150, scan(10**9)),
        Task("scan-1e7", 60, scan(10**7)),
        *models[FIRST:],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu", help="folder")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(cuda)")
    parser.add_argument("--seconds", type=float, default=165, help="per training (%(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="for all tasks (no limit)")
    parser.add_argument("--batch", type=int, help="labelled and unlabelled images per step")
    parser.add_argument("--only", nargs="*", help="names of the tasks to run")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    if not os.environ.get("GPQ_DATA"):
        sys.exit("error: set GPQ_DATA to the folder of the data packs")
    end = time.monotonic() + 60 * options.minutes
    failed = [task.name for task in tasks(options) if not run_task(task, end, options)]
    plot = ROOT / "docs" / "gpu.png" if options.device == "cuda" else options.out / "gpu.png"
    command = [sys.executable, "-m", "bench.gpuscan", "--draw", str(options.out)]
    if any(options.out.glob("gpu-scan-*.json")):
        subprocess.run([*command, "--plot", str(plot)], cwd=ROOT)  # fails without matplotlib
    if failed:
        sys.exit(f"error: these tasks failed: {', '.join(failed)}")


def run_task(task: Task, end: float, options: argparse.Namespace) -> bool:
    """Runs a task and writes its result; returns False if it failed.

    A task is left out if --only does not name it, if it has a result, if it would not finish before
    ``end`` (by the monotonic clock), or if something that it needs is missing.
    """
    result = options.out / f"{task.name}.json"
    if options.only and task.name not in options.only:
        return True
    if result.is_file():
        print(f"{task.name}: has a result already", flush=True)
        return True
    started = time.monotonic()
    if started + task.seconds > end:
        print(f"{task.name}: left out, as it takes about {task.seconds:.0f} seconds", flush=True)
        return True
    try:
        found = task.run(options)
    except subprocess.CalledProcessError as error:
        print(f"{task.name}: failed with status {error.returncode}", flush=True)
        return False
    if found is None:
        print(f"{task.name}: left out, as its data, model or packages are missing", flush=True)
        return True
    seconds = round(time.monotonic() - started, 1)
    result.write_text(json.dumps({**found, "seconds": seconds, "device": _device()}) + "\n")
    print(f"{task.name}: {result.read_text().strip()[:400]}", flush=True)
    return True


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    main()
