import json
from pathlib import Path

import pytest

from tests.images import tree
from trainer import cifar10
from trainer.__main__ import main
from trainer.reproduce import draw, grid


def test_table_2_is_a_run_for_each_length_or_one_of_nested_codes() -> None:
    paper = grid.table("cifar10", 1, "paper", grid.PAPER_BITS)
    assert [run.bits for run in paper] == [12, 24, 32, 48]
    assert {run.dataset for run in paper} == {"cifar10"}
    (modern,) = grid.table("cifar10", 1, "modern", grid.PAPER_BITS)
    assert (modern.bits, modern.nested) == (48, True)


def test_table_3_is_five_draws_of_each() -> None:
    runs = grid.table("nuswide", 2, "paper", (12, 48))
    assert len(runs) == 10
    assert len({run.name for run in runs}) == 10
    assert runs[0].dataset == "nuswide-unseen-0"


def test_figures_vary_what_they_show() -> None:
    weights = grid.figure(4, "cifar10", "paper", grid.PAPER_BITS)
    assert len({run.name for run in weights}) == 8
    assert weights[1].options[-2:] == ["--lambda1", "0.01"]
    variants = grid.figure(5, "cifar10", "modern", (12, 24))
    assert {run.variant for run in variants} == {"gpq", "gpq-h", "gpq-t"}
    assert {run.recipe for run in variants} == {"paper"}


def line(bits: int, found: float, dataset: str) -> dict[str, object]:
    sizes = {"n_query": 9000, "n_database": 30_000}
    return {"bits": bits, "mAP_tie_aware": found, "dataset": dataset, "recipe": "modern", **sizes}


def test_a_table_stands_beside_the_published_numbers() -> None:
    lines = [line(12, 0.3, "cifar10-unseen-0"), line(12, 0.5, "cifar10-unseen-1")]
    text = draw.table(lines, "cifar10", 2, (12, 48))
    assert "| GPQ, as published | 0.321 | 0.358 |" in text
    assert "| this, modern | 0.400 ± 0.100 |  |" in text
    assert "9,000 queries over 30,000, 2 draws" in text


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """CIFAR-10's layout with so few pictures that protocol 2 still has all of its parts."""
    places = [
        f"{p}/{c}/{n}.png" for p in ("train", "test") for c in cifar10.CLASSES for n in (0, 1)
    ]
    return tree(tmp_path / "cifar10", *places)


def test_runs_are_done_once_and_drawn(few: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    small = ["--width", "4", "--batch-labelled", "8", "--batch-unlabelled", "8"]
    small += ["--held-out", "0"]
    command = ["reproduce", "--table", "3", "--data", str(few), "--out", str(out), "--runs", "2"]
    command += ["--recipe", "modern", "--steps", "2", "--device", "cpu", "--", *small]
    assert main(command) == 0
    assert "| this, modern | " in capsys.readouterr().out
    lines = [json.loads(text) for text in (out / "runs.jsonl").read_text().splitlines()]
    assert [found["bits"] for found in lines] == [12, 24, 32, 48] * 2
    assert len({found["model"] for found in lines}) == 2
    assert (out / "table-3-cifar10-modern.png").read_bytes().startswith(b"\x89PNG")
    before = (out / "runs.jsonl").stat().st_mtime_ns
    assert main(command) == 0
    assert (out / "runs.jsonl").stat().st_mtime_ns == before


def test_reproduce_without_data_is_a_clear_error(capsys) -> None:
    assert main(["reproduce", "--table", "2"]) == 1
    assert "--nuswide" in capsys.readouterr().err
