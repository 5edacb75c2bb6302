"""Runs the service's commands, such as ``python -m service import``, as processes.

Every function takes the words of the command, the folder to run it in, and settings, which become
``GPQ_*`` environment variables.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from harness.processes import environment


def start(
    *arguments: str,
    folder: Path,
    output: IO[str] | None = None,
    variables: Mapping[str, str] | None = None,
    **settings: object,
) -> "subprocess.Popen[str]":
    """Starts a command. The caller reads its output, unless it goes to a file ``output``, and
    waits for it. ``variables``: other environment variables."""
    return subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        cwd=folder,
        env={**environment(**settings), **(variables or {})},
        stdout=output or subprocess.PIPE,
        stderr=output or subprocess.PIPE,
        text=True,
    )


def run(
    *arguments: str,
    folder: Path,
    variables: Mapping[str, str] | None = None,
    **settings: object,
) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end, whether it succeeds or fails."""
    process = start(*arguments, folder=folder, variables=variables, **settings)
    printed, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, printed, errors)


def service(*arguments: str, folder: Path, **settings: object) -> str:
    """Runs a command that must succeed, and returns its standard output."""
    done = run(*arguments, folder=folder, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout
