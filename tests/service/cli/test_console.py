"""Tests of the command ``gpq``."""

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import gpq
from harness import ROOT
from harness.processes import environment
from service.cli import console, main
from trainer.parser import parser as trainer_parser

MAIN = "from service.cli.console import main; main()"
WITHOUT_TORCH = f"import sys; sys.modules['torch'] = None; {MAIN}"


def run(
    *words: str, folder: Path, code: str = MAIN, **settings: object
) -> "subprocess.CompletedProcess[str]":
    """Runs ``gpq`` with words to its end."""
    command = [sys.executable, "-P", "-c", code, *words]  # -P, as in a console script
    variables = environment(**settings)
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


def test_help_lists_every_command_of_the_service_and_the_trainer(tmp_path: Path) -> None:
    done = run("--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    for parser in (main._parser(), trainer_parser()):
        assert parser._subparsers is not None
        (commands,) = parser._subparsers._group_actions
        assert commands.choices is not None
        assert set(commands.choices) <= listed
    assert console.SERVE in listed


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert run("--version", folder=tmp_path).stdout == f"gpq {gpq.__version__}\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "COMMAND"),
        (["nonsense"], "nonsense"),
        (["serve", "now"], "now"),
        (["serve", "jobs", "list"], "jobs list"),
        (["jobs", "nonsense"], "nonsense"),
        (["train", "--nonsense"], "--data"),
    ],
)
def test_wrong_usage_ends_with_status_2(words: list[str], named: str, tmp_path: Path) -> None:
    done = run(*words, folder=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_of_the_service_gets_its_arguments_and_settings(tmp_path: Path) -> None:
    done = run("export", "x.jsonl", folder=tmp_path, database_url="sqlite:///none.db")
    assert done.returncode == 1
    assert f"there is no database {tmp_path}/none.db" in done.stderr


def test_serve_runs_the_service(tmp_path: Path) -> None:
    done = run("serve", folder=tmp_path, host="0.0.0.0")
    assert done.returncode == 1
    assert done.stderr.startswith("error: settings: ")
    assert "GPQ_HOST=0.0.0.0" in done.stderr


def test_a_folder_with_the_name_of_a_package_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").touch()
    (tmp_path / "service" / "__main__.py").write_text("print('another program')")
    done = run("jobs", "list", folder=tmp_path)
    assert "another program" not in done.stdout
    assert "there is no database" in done.stderr


def test_a_command_of_the_trainer_gets_its_arguments(tmp_path: Path) -> None:
    done = run("cut", "--model", "none", "--bits", "12", "--out", "x", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: none")


@pytest.mark.parametrize("command", console.TRAINER)
def test_without_torch_a_command_of_the_trainer_says_what_to_install(
    command: str, tmp_path: Path
) -> None:
    done = run(command, "--help", folder=tmp_path, code=WITHOUT_TORCH)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: gpq {command} needs PyTorch, which is missing; "
        "run: pip install 'gpq-search[train]'\n"
    )


def test_the_entry_point_is_main() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    entry = EntryPoint("gpq", scripts["gpq"], "console_scripts")
    assert entry.load() is console.main
