"""Runs trainings in separate processes and keeps their results; finished runs are skipped."""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from gpq.model import artifact
from trainer.errors import TrainerError
from trainer.lines import Line, read, write
from trainer.reproduce.grid import PlannedRun
from trainer.training import checkpoint

LINES = "runs.jsonl"


def run_all(
    runs: list[PlannedRun], data: dict[str, Path], out: Path, extra: list[str]
) -> list[Line]:
    """Makes the runs that have no results yet; returns the lines of ``out``/runs.jsonl of all.

    ``data``: the folder of each published data set. ``extra``: more options of ``trainer train``.
    A run that was interrupted continues from its checkpoint. Raises TrainerError if a run fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    for run in tqdm(runs, desc="runs", unit="run"):
        if not _lines(out, run, extra):
            _run(run, data[run.dataset.partition("-unseen-")[0]], out, extra)
    return [line for run in runs for line in _lines(out, run, extra)]


def folder_name(run: PlannedRun, extra: list[str]) -> str:
    """Returns the name of a run's folder, which depends on the options too."""
    return f"{run.name}-{hashlib.sha256(json.dumps(extra).encode()).hexdigest()[:8]}"


def _lines(out: Path, run: PlannedRun, extra: list[str]) -> list[Line]:
    """Returns the lines of a run, one per code length; none if any is missing."""
    folder = folder_name(run, extra)
    lines = [line for line in read(out / LINES) if line.get("folder") == folder]
    return lines if [line["bits"] for line in lines] == run.lengths else []


def _run(run: PlannedRun, data: Path, out: Path, extra: list[str]) -> None:
    name = folder_name(run, extra)
    folder = out / name
    words = ["--data", str(data), "--out", str(folder), *run.options, *extra]
    resumed = (folder / checkpoint.NAME).is_file()
    _trainer("train", *words, "--resume" if resumed else "--overwrite")
    words = ["--model", str(folder), "--data", str(data), "--dataset", run.dataset, "--json"]
    printed = _trainer("evaluate", *words, "--write", "--bits", *map(str, run.lengths))
    training = artifact.read_config(folder)["about"]["training"]
    hardware = {key: training[key] for key in ("seconds", "device", "versions")}
    about = {"run": run.name, "folder": name, "extra": extra, **asdict(run)}
    new = [{**about, **json.loads(text), **hardware} for text in printed.splitlines()]
    others = [line for line in read(out / LINES) if line.get("folder") != name]
    write(out / LINES, [*others, *new])
    (folder / checkpoint.NAME).unlink(missing_ok=True)  # it is four times as large as the model


def _trainer(*words: str) -> str:
    command = [sys.executable, "-m", "trainer", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise TrainerError(f"{' '.join(words)} ended with status {done.returncode}")
    return done.stdout
