"""What waits for a card, most valuable first; done steps are not done again.

    make gpu                                 results in runs/gpu
    make gpu OUT=results ARGS="--steps 300"  a short one
    python -m bench.gpu --device cpu --steps 4 --batch 16 --out /tmp/x
                                             the same steps without a card

GPQ_DATA is a folder with cifar10-jpeg.tar.xz, or with its unpacked train/ and test/.
Needs torch, torchvision, numpy, Pillow, safetensors, tqdm and pytest; installs nothing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACK = "cifar10-jpeg.tar.xz"
TRAIN_STEPS = 12_000


def cifar10(out: Path) -> Path:
    """The folder with train/ and test/, unpacked below ``out`` where it comes as a pack."""
    given = os.environ.get("GPQ_DATA")
    if not given:
        sys.exit(f"error: set GPQ_DATA to the folder of {PACK}")
    folder = Path(given)
    if (folder / "train").is_dir():
        return folder
    unpacked = out / "data"
    if not (unpacked / "test").is_dir():
        with tarfile.open(folder / PACK) as archive:
            archive.extractall(unpacked, filter="data")
    return unpacked


def tests(options: argparse.Namespace) -> dict[str, object]:
    """Every test that needs a card."""
    if options.device == "cpu":
        return {"skipped": "no card asked for"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-W", "default"]
    done = subprocess.run([*command, "tests/cuda"], cwd=ROOT)
    if done.returncode:
        sys.exit("error: a CUDA test failed; nothing else is run")
    return {"passed": True}


def retrain(options: argparse.Namespace) -> dict[str, object]:
    """models/cifar10 anew; a broken run goes on from its checkpoint."""
    model = options.out / "cifar10"
    command = [sys.executable, "-m", "trainer", "train", "--dataset", "cifar10"]
    command += ["--data", str(cifar10(options.out)), "--out", str(model), "--bits", "48"]
    command += ["--network", "resnet", "--recipe", "modern", "--logits", "per-subspace"]
    command += ["--steps", str(options.steps), "--device", options.device]
    if options.batch:
        batch = str(options.batch)
        command += ["--batch-labelled", batch, "--batch-unlabelled", batch]
    if (model / "checkpoint.pt").is_file():
        command.append("--resume")
    subprocess.run(command, cwd=ROOT, check=True)
    return {"steps": options.steps}


def measure(options: argparse.Namespace) -> dict[str, object]:
    """mAP of the retrained model on protocol 1, kept in its config.json too."""
    command = [sys.executable, "-m", "trainer", "evaluate", "--dataset", "cifar10", "--json"]
    command += ["--write", "--data", str(cifar10(options.out)), "--device", options.device]
    command += ["--model", str(options.out / "cifar10")]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return measured


STEPS: dict[str, Callable[[argparse.Namespace], dict[str, object]]] = {
    "tests": tests,
    "retrain": retrain,
    "measure": measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=TRAIN_STEPS, help="(%(default)s)")
    parser.add_argument("--batch", type=int, help="pictures of each kind a step")
    parser.add_argument("--again", action="store_true", help="forget earlier results")
    options = parser.parse_args()
    options.out = options.out.resolve()
    if options.again:
        shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, step in STEPS.items():
        result = options.out / f"{name}.json"
        if result.is_file():
            print(f"{name}: done before")
            continue
        started = time.monotonic()
        found = step(options)
        seconds = round(time.monotonic() - started, 1)
        result.write_text(json.dumps({**found, "seconds": seconds, "device": _device()}) + "\n")
        print(f"{name}: {result.read_text().strip()}")


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    main()
