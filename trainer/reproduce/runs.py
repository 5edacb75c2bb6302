"""Runs in processes of their own; what is done is not done again."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpq import artifact
from trainer import checkpoint
from trainer.config import NESTED_BITS
from trainer.errors import TrainerError
from trainer.reproduce.grid import Run

LINES = "runs.jsonl"
Line = dict[str, Any]


def run_all(runs: list[Run], data: dict[str, Path], out: Path, extra: list[str]) -> list[Line]:
    """The lines of ``out``/runs.jsonl of these runs, in order, after those missing are run.

    data: the folder of each published data set; extra: more options of ``trainer train``.
    A run that was broken off goes on from its checkpoint. Raises TrainerError where one fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    for run in tqdm(runs, desc="runs", unit="run"):
        if not _lines(out, run, extra):
            _run(run, data[run.dataset.partition("-unseen-")[0]], out, extra)
    return [line for run in runs for line in _lines(out, run, extra)]


def _lines(out: Path, run: Run, extra: list[str]) -> list[Line]:
    path = out / LINES
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["run"] == run.name and line["extra"] == extra]


def _run(run: Run, data: Path, out: Path, extra: list[str]) -> None:
    folder = out / run.name
    words = ["--data", str(data), "--out", str(folder), *run.options, *extra]
    going_on = (folder / checkpoint.NAME).is_file()
    _trainer("train", *words, "--resume" if going_on else "--overwrite")
    words = ["--model", str(folder), "--data", str(data), "--dataset", run.dataset, "--json"]
    shorter = [str(bits) for bits in NESTED_BITS if bits < run.bits] if run.nested else []
    printed = _trainer("evaluate", *words, "--write", *(["--bits", *shorter] if shorter else []))
    training = artifact.read_config(folder)["about"]["training"]
    with (out / LINES).open("a") as file:
        for text in printed.splitlines():
            measured = json.loads(text)
            about = {"run": run.name, "extra": extra, **asdict(run), **measured}
            hardware = {name: training[name] for name in ("seconds", "device", "versions")}
            file.write(json.dumps({**about, **hardware}) + "\n")


def _trainer(*words: str) -> str:
    command = [sys.executable, "-m", "trainer", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise TrainerError(f"{' '.join(words)} ended with status {done.returncode}")
    return done.stdout
