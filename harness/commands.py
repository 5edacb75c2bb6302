"""Commands of the service as processes, with GPQ_* settings of their own."""

import os
import subprocess
import sys
from pathlib import Path

from harness import ROOT


def start(*arguments: str, folder: Path, **settings: object) -> "subprocess.Popen[str]":
    """`python -m service …` in ``folder``; the caller waits for it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GPQ_")}
    environment |= {f"GPQ_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, folder: Path, **settings: object) -> "subprocess.CompletedProcess[str]":
    """The same, to its end."""
    process = start(*arguments, folder=folder, **settings)
    printed, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, printed, errors)


def service(*arguments: str, folder: Path, **settings: object) -> str:
    """What it prints; it must succeed."""
    done = run(*arguments, folder=folder, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout
