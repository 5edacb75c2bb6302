import io
import json
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import pytest

from gpq.engine import torch_architectures
from gpq.model import artifact
from harness.images import tree
from tests.trainer.data.test_datasets import nuswide_tree
from trainer.__main__ import main
from trainer.data import cifar10, nuswide
from trainer.methods.deep.learning import Learner
from trainer.reproduce import draw, grid, runs


def test_table_2_is_a_run_for_each_length_or_one_of_nested_codes() -> None:
    paper = grid.table("cifar10", 1, "paper", grid.PAPER_BITS, ["GPQ"])
    assert [run.bits for run in paper] == [12, 24, 32, 48]
    assert {run.dataset for run in paper} == {"cifar10"}
    (modern,) = grid.table("cifar10", 1, "modern", grid.PAPER_BITS, ["GPQ"])
    assert (modern.bits, modern.nested) == (48, True)
    variants = grid.table("cifar10", 1, "paper", (12, 24), list(grid.VARIANTS))
    assert {run.variant for run in variants} == {"gpq", "gpq-h", "gpq-t", "gpq-f"}
    assert variants[-1].options[-2:] == ["--network", "cnn-f"]


def test_table_3_is_five_draws_of_each() -> None:
    runs = grid.table("nuswide", 2, "paper", (12, 48), ["GPQ"])
    assert len(runs) == 10
    assert len({run.name for run in runs}) == 10
    assert runs[0].dataset == "nuswide-unseen-0"


def test_figure_4_is_a_grid_of_both_weights() -> None:
    weights = grid.figure(4, "cifar10", "paper", grid.PAPER_BITS)
    assert len({run.name for run in weights}) == 16
    assert weights[1].options[-4:] == ["--lambda1", "0.0", "--lambda2", "0.01"]
    assert grid.figure(3, "cifar10", "modern", (12, 24)) == grid.figure(
        5, "cifar10", "modern", (12, 24)
    )


def test_runs_with_other_lengths_or_options_have_other_folders() -> None:
    (curves,) = grid.figure(3, "cifar10", "modern", grid.PAPER_BITS)
    (table,) = grid.table("cifar10", 1, "modern", grid.PAPER_BITS, ["GPQ"])
    assert (curves.lengths, table.lengths) == ([48], [12, 24, 32, 48])
    folders = [runs.folder_name(curves, []), runs.folder_name(table, [])]
    folders.append(runs.folder_name(table, ["--steps", "7"]))
    assert len(set(folders)) == 3


def line(bits: int, found: float, dataset: str) -> dict[str, object]:
    sizes = {"n_query": 9000, "n_database": 30_000}
    about = {"bits": bits, "dataset": dataset, "recipe": "modern", "variant": "gpq"}
    return {**about, "mAP_tie_aware": found, **sizes}


def test_a_table_has_the_published_numbers_too() -> None:
    lines = [line(12, 0.3, "cifar10-unseen-0"), line(12, 0.5, "cifar10-unseen-1")]
    text = draw.table(lines, "cifar10", 2, (12, 48))
    assert "| GPQ, as published | 0.321 | 0.358 |" in text
    assert "| GPQ, modern | 0.400 ± 0.100 |  |" in text
    assert "9,000 queries over 30,000, 2 draws" in text


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder in CIFAR-10's layout, with just enough images for all parts of protocol 2."""
    places = [
        f"{p}/{c}/{n}.png" for p in ("train", "test") for c in cifar10.CLASSES for n in (0, 1)
    ]
    return tree(tmp_path / "cifar10", *places)


SMALL = ["--device", "cpu", "--steps", "1", "--", "--width", "4", "--size", "32"]
SMALL += ["--batch-labelled", "4", "--batch-unlabelled", "4"]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes runs in this process, because others take seconds to start.

    Protocol 1 gets few queries and a small database.
    """

    def trainer(*words: str) -> str:
        printed = io.StringIO()
        with redirect_stdout(printed):
            assert main(list(words)) == 0
        return printed.getvalue()

    monkeypatch.setattr(runs, "_trainer", trainer)
    monkeypatch.setattr(cifar10, "QUERY_EVERY", 4)
    monkeypatch.setattr(cifar10, "LABELLED_PER_CLASS", 1)
    monkeypatch.setattr(nuswide, "QUERIES_PER_CONCEPT", 1)
    monkeypatch.setattr(nuswide, "LABELLED_PER_CONCEPT", 2)


def lines_of(out: Path) -> list[dict[str, object]]:
    return [json.loads(text) for text in (out / "runs.jsonl").read_text().splitlines()]


def test_runs_are_made_once_and_drawn(few: Path, tmp_path: Path, capsys) -> None:
    """Uses separate processes, as the command does for users."""
    out = tmp_path / "out"
    command = ["reproduce", "--table", "3", "--data", str(few), "--out", str(out), "--runs", "1"]
    command += ["--recipe", "modern", *SMALL, "--held-out", "0"]
    assert main(command) == 0
    assert "| GPQ, modern | " in capsys.readouterr().out
    lines = lines_of(out)
    assert [found["bits"] for found in lines] == [12, 24, 32, 48]
    assert (out / "table-3-cifar10-modern.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob("*/checkpoint.pt"))
    before = (out / "runs.jsonl").stat().st_mtime_ns
    assert main(command) == 0
    assert (out / "runs.jsonl").stat().st_mtime_ns == before


def test_a_run_with_incomplete_lines_is_made_again(
    few: Path, tmp_path: Path, in_process: None, capsys
) -> None:
    out = tmp_path / "out"
    command = ["reproduce", "--table", "2", "--data", str(few), "--out", str(out)]
    command += ["--recipe", "modern", *SMALL]
    assert main(command) == 0
    whole = (out / "runs.jsonl").read_bytes()
    (out / "runs.jsonl").write_bytes(whole[:-40])
    assert main(command) == 0
    assert "skipping an incomplete line" in capsys.readouterr().err
    assert [found["bits"] for found in lines_of(out)] == [12, 24, 32, 48]
    longer = [*command[: command.index("--steps")], "--steps", "2", *SMALL[4:]]
    assert main(longer) == 0
    assert len(lines_of(out)) == 8


def test_the_figures_of_trainings_are_drawn(
    few: Path, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "PAIRS", ((0.0, 0.1), (0.1, 0.1)))
    out = tmp_path / "out"
    for number in "345":
        command = ["reproduce", "--figure", number, "--data", str(few), "--out", str(out)]
        assert main([*command, "--recipe", "paper", "--bits", "12", *SMALL]) == 0
        drawn = (out / f"figure-{number}-cifar10-paper.png").read_bytes()
        assert drawn.startswith(b"\x89PNG")
    lines = lines_of(out)
    assert len(lines) == 1 + 2  # figures 3 and 5 share a run
    assert [(line["lambda1"], line["lambda2"]) for line in lines[1:]] == [(0.0, 0.1), (0.1, 0.1)]


def test_variants_are_rows_of_a_table_of_trainings(
    few: Path, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    # CNN-F's 60 million weights would take most of the time.
    small = partial(torch_architectures.VGG, width=4)
    monkeypatch.setitem(torch_architectures.NETWORKS, "cnn-f", small)
    out = tmp_path / "out"
    command = ["reproduce", "--table", "2", "--data", str(few), "--out", str(out), "--bits", "12"]
    command += ["--methods", "gpq-t", "GPQ-F", "--recipe"]
    assert main([*command, "paper", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "| GPQ-T, paper | " in printed and "| GPQ-F, paper | " in printed
    (cnn_f,) = [line for line in lines_of(out) if line["variant"] == "gpq-f"]
    training = artifact.read_config(out / str(cnn_f["folder"]))["about"]["training"]
    assert (training["network"], training["variant"]) == ("cnn-f", "gpq")
    assert main([*command, "modern"]) == 1
    assert "the recipe modern has no variants" in capsys.readouterr().err


def test_nuswide_is_reproduced_from_its_lists(tmp_path: Path, in_process: None, capsys) -> None:
    nuswide_tree(tmp_path / "nuswide")
    command = ["reproduce", "--nuswide", str(tmp_path / "nuswide"), "--out", str(tmp_path / "out")]
    assert main([*command, "--table", "2", "--recipe", "paper", "--bits", "12", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "nuswide, protocol 1" in printed and "| GPQ, as published | 0.852 |" in printed
    assert "3 queries over 3" in printed


def test_a_table_of_methods_is_measured_once_and_drawn(
    few: Path, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(Learner, "steps", 5)
    out = tmp_path / "out"
    command = ["reproduce", "--table", "3", "--data", str(few), "--out", str(out), "--runs", "2"]
    command += ["--methods", "SH", "GPQ", "--bits", "12", "24", "--size", "32"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "cifar10, protocol 2: mAP, efficientnet-lite0 at 32 pixels" in printed
    assert "| GPQ, as published |  | 0.321 | 0.333 |" in printed
    assert " ± " in printed  # over two draws
    assert (out / "table-3-cifar10-methods.png").read_bytes().startswith(b"\x89PNG")
    lines = (out / "methods.jsonl").read_bytes()
    assert len(lines.splitlines()) == 2 * 2 * 2
    assert main(command) == 0
    assert (out / "methods.jsonl").read_bytes() == lines


def test_the_figures_of_methods_are_drawn(
    few: Path, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "steps", 5)
    out = tmp_path / "out"
    for number in "345":
        command = ["reproduce", "--figure", number, "--data", str(few), "--out", str(out)]
        command += ["--bits", "12", "--size", "32"]
        command += ["--methods", "SH", "GPQ"] if number == "3" else []
        assert main(command) == 0
        path = out / f"figure-{number}-cifar10-methods.png"
        assert path.read_bytes().startswith(b"\x89PNG")
    curves = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    assert [line["method"] for line in curves] == ["SH", "GPQ"]
    assert all(len(line["precision_of_recall"]) == 21 for line in curves)
    weights = [json.loads(line) for line in (out / "methods.jsonl").read_text().splitlines()]
    assert len({line["figures"]["method"] for line in weights}) == 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "7"], "give --recipe"),
        (["--recipe", "paper", "--seeds", "3"], "leave out --recipe"),
        (["--recipe", "paper", "--methods", "PQ"], "PQ cannot be trained on pixels"),
        (["--figure", "4", "--methods", "PQ"], "--methods is for tables"),
        (["--figure", "5", "--seeds", "2"], "are those of tables"),
    ],
)
def test_options_that_do_not_belong_together_are_a_clear_error(
    words: list[str], message: str, few: Path, tmp_path: Path, capsys
) -> None:
    table = [] if "--figure" in words else ["--table", "2"]
    command = ["reproduce", "--data", str(few), "--out", str(tmp_path / "out"), *table]
    assert main([*command, *words]) == 1
    assert message in capsys.readouterr().err


def test_reproduce_without_data_is_a_clear_error(capsys) -> None:
    assert main(["reproduce", "--table", "2"]) == 1
    assert "--nuswide" in capsys.readouterr().err
