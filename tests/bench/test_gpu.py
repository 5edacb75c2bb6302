"""Tests of ``make gpu`` that need no GPU."""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from bench import gpu, gpuscan
from gpq.scan.cuda.scanner import CudaScanner
from gpq.scan.reference import ReferenceScanner
from tests.scanners import DEVICE, codes_like, luts_like
from trainer.parser import parser


@pytest.mark.parametrize("ks", [(10,), (10, 100)])
def test_scans_are_drawn_beside_other_files(ks: tuple[int, ...], tmp_path: Path) -> None:
    for rows in (1000, 2000):
        searches = [
            {"Q": Q, "k": k, "ms": 1.0, "ms_a_query": 1 / Q, "pairs_a_second": 1000.0 * Q * rows}
            for Q in (1, 256)
            for k in ks
        ]
        found = {"rows": rows, "device": "a GPU", "searches": searches}
        (tmp_path / f"gpu-scan-{rows}.json").write_text(json.dumps(found))
    (tmp_path / "scan-1e9.json").write_text(json.dumps({"result": "gpu-scan-1000.json"}))
    gpuscan.draw(tmp_path, tmp_path / "gpu.png")
    with Image.open(tmp_path / "gpu.png") as plot:
        assert plot.width > 1000 and len(plot.convert("RGB").getcolors(1 << 24) or ()) > 10


@pytest.mark.parametrize("n", [3, 200])
def test_scores_summed_by_torch_equal_the_reference_scanners(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpuscan, "CHUNK", 64)
    random = np.random.default_rng(0)
    packed, luts = codes_like("few", n, 12, random), luts_like("levels", 1, 12, random)
    scanner = CudaScanner(packed, 12, DEVICE)
    found = gpuscan.search_by_torch(scanner, torch.from_numpy(luts).to(DEVICE), 10)
    for each, expected in zip(found, ReferenceScanner(packed, 12).search(luts, 10), strict=True):
        assert each.tolist() == expected[0].tolist()


def test_cuvs_gets_the_same_number_of_codes_and_bits_or_a_reason_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = argparse.Namespace(rows=150, queries=[1, 3], k=[2], repeats=1)
    monkeypatch.setitem(sys.modules, "cuvs", None)
    assert "cuvs" in gpuscan.measure_cuvs(options, torch.device("cpu"))["absent"]
    rows: list[int] = []

    def extend(index: list[int], vectors: torch.Tensor, numbers: torch.Tensor) -> list[int]:
        assert len(vectors) == len(numbers)
        return index + numbers.tolist()

    def search(params: dict[str, int], index: list[int], queries: torch.Tensor, k: int) -> None:
        assert params["n_probes"] == gpuscan.CUVS_LISTS
        rows[:] = index

    fake = SimpleNamespace(
        IndexParams=dict,
        SearchParams=dict,
        build=lambda params, vectors: list(range(len(vectors))),
        extend=extend,
        search=search,
    )
    monkeypatch.setitem(sys.modules, "cuvs", SimpleNamespace(neighbors=fake))
    monkeypatch.setitem(sys.modules, "cuvs.neighbors", SimpleNamespace(ivf_pq=fake))
    monkeypatch.setattr(gpuscan, "CHUNK", 64)
    found = gpuscan.measure_cuvs(options, torch.device("cpu"))
    assert rows == list(range(150))
    assert found["pq_bits"] * found["pq_dim"] == 48
    assert [(row["Q"], row["k"]) for row in found["searches"]] == [(1, 2), (3, 2)]


def test_tasks_run_once_if_there_is_time(tmp_path: Path) -> None:
    options = argparse.Namespace(out=tmp_path, only=None, seconds=60)
    names = [task.name for task in gpu.tasks(options)]
    assert names[:4] == ["tests-scan", "tests", "cifar10-lite0", "cifar10-lite0-distilled"]
    assert len(set(names)) == len(names)
    run: list[int] = []
    task = gpu.Task("one", 60, lambda options: run.append(1) or {"found": 1})
    assert gpu.run_task(task, time.monotonic() + 59, options)
    assert run == []
    for _ in range(2):
        assert gpu.run_task(task, time.monotonic() + 61, options)
    assert run == [1]
    assert json.loads((tmp_path / "one.json").read_text())["found"] == 1
    no_data = gpu.Task("no data", 0, lambda options: None)
    assert gpu.run_task(no_data, time.monotonic() + 1, options)
    assert not (tmp_path / "no data.json").exists()


def test_the_trainer_accepts_the_options_of_every_training(tmp_path: Path) -> None:
    """A training that takes a model comes after that of the model, and needs it."""
    trainings = gpu.trainings()
    for position, training in enumerate(trainings):
        words = ["train", "--data", "data", "--out", "out", "--dataset", training.dataset]
        models = [word for pair in training.earlier.items() for word in pair]
        parsed = parser().parse_args([*words, *training.train, *models])
        assert str(parsed.width or 32) == gpu._option(training, "--width")
        if training.earlier:
            earlier = {before.name for before in trainings[:position]}
            assert earlier >= set(training.earlier.values())
            options = argparse.Namespace(out=tmp_path)
            assert gpu.train(replace(training, data=lambda out: out), options) is None
    assert {option for t in trainings for option in t.earlier} == {"--init", "--teacher"}
