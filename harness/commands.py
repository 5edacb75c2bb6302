"""Runs the service's commands, such as ``python -m service import``, as processes.

Every function takes the words of the command, the folder to run it in, and settings, which become
``GPQ_*`` environment variables.
"""

import subprocess
import sys
from pathlib import Path

from harness.processes import environment


def start(*arguments: str, folder: Path, **settings: object) -> "subprocess.Popen[str]":
    """Starts a command. The caller reads its output and waits for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        cwd=folder,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, folder: Path, **settings: object) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end, whether it succeeds or fails."""
    process = start(*arguments, folder=folder, **settings)
    printed, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, printed, errors)


def service(*arguments: str, folder: Path, **settings: object) -> str:
    """Runs a command that must succeed, and returns its standard output."""
    done = run(*arguments, folder=folder, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout
