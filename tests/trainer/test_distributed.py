"""Tests a run of two processes, over gloo, on the CPU."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from gpq.engine import engines
from harness import ROOT
from tests.trainer.recipes.test_recipe import recipe
from trainer import distributed

WORKER = """
import sys, torch
from tests.trainer.test_distributed import steps
from trainer import distributed
distributed.start(torch.device("cpu"))
torch.save(steps(), f"{sys.argv[1]}/{torch.distributed.get_rank()}.pt")
distributed.stop()
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
Tensors = dict[str, torch.Tensor]


def steps() -> dict[str, Tensors]:
    """Computes a step of each recipe, with batch norm in either mode.

    Returns the gradients, the running statistics and the loss by recipe and mode.
    """
    return {
        f"{name} {mode}": step(name, mode)
        for name in ("paper", "modern")
        for mode in ("eval", "train")
    }


def step(name: str, mode: str) -> Tensors:
    made = recipe(name, bits=16, details=1 if name == "modern" else 0)
    made.autocast = nullcontext()  # bfloat16 would hide small errors
    made.model.F = distributed.synchronise_batch_norm(made.model.F)
    made.model.train(mode == "train")
    total, _ = made.losses(made.draw())
    total.backward()
    distributed.average_gradients(made.model)
    gradients = {f"gradient of {name}": p.grad for name, p in made.model.named_parameters()}
    return {**gradients, **dict(made.model.named_buffers()), "loss": total.detach()}


def torchrun(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*TORCHRUN, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def of_both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensors]]:
    folder = tmp_path_factory.mktemp("two")
    (folder / "worker.py").write_text(WORKER)
    torchrun(str(folder / "worker.py"), str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_take_the_step_of_one(of_both: list[dict[str, Tensors]]) -> None:
    for which, alone in steps().items():
        for rank in (0, 1):
            found = of_both[rank][which]
            assert found.keys() == alone.keys()
            for name, expected in alone.items():
                difference = (found[name] - expected).abs().max()
                assert difference <= 1e-3 * expected.abs().max() + 1e-6, (which, name)


def test_both_processes_have_the_same_running_statistics(of_both: list[dict[str, Tensors]]) -> None:
    for which, first in of_both[0].items():
        running = [name for name in first if "running" in name]
        assert running
        for name in running:
            assert torch.equal(first[name], of_both[1][which][name]), (which, name)


def test_torchrun_trains_one_model(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = ["--width", "4", "--batch-labelled", "16", "--batch-unlabelled", "16", "--steps", "6"]
    torchrun("-m", "trainer", "train", "--data", str(sample), "--out", str(out), *small)
    assert engines.load(out).about["training"]["processes"] == 2
    lines = (out / "log.jsonl").read_text().splitlines()
    assert len(lines) == 8  # seven checks, one of them before the first step, and the last step
