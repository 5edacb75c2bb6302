"""Two processes of one run, over gloo, on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from gpq import artifact
from tests.server import ROOT
from tests.test_recipe import recipe
from trainer import distributed
from trainer.recipes import RECIPES

# Batch norm uses running statistics: its share's are what two processes differ in.
WORKER = """
import sys, torch
from tests.test_distributed import gradients
from trainer import distributed
distributed.start(torch.device("cpu"))
torch.save(gradients(sys.argv[1]), f"{sys.argv[2]}/{torch.distributed.get_rank()}.pt")
distributed.stop()
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


def gradients(name: str) -> dict[str, torch.Tensor]:
    made = recipe(name, bits=16, details=1 if name == "modern" else 0)
    made.model.eval()
    total, _ = made.losses()
    total.backward()
    distributed.average_gradients(made.model)
    return {name: p.grad for name, p in made.model.named_parameters()}


def torchrun(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*TORCHRUN, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    for name in RECIPES:
        torchrun(str(worker), name, str(tmp_path))
        alone = gradients(name)
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
            assert found.keys() == alone.keys()
            for parameter, expected in alone.items():
                scale = expected.abs().max()
                # bfloat16 rounds sums over other batches otherwise; a wrong factor is 2.
                assert (found[parameter] - expected).abs().max() < 0.02 * scale, parameter


def test_torchrun_trains_one_model(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = ["--width", "4", "--batch-labelled", "16", "--batch-unlabelled", "16", "--steps", "6"]
    torchrun("-m", "trainer", "train", "--data", str(sample), "--out", str(out), *small)
    assert artifact.load(out).about["training"]["processes"] == 2
    assert len((out / "log.jsonl").read_text().splitlines()) == 7  # six checks and the last step
