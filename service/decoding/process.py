"""A process that decodes images, as the service sees it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpq.errors import ImageError
from service.decoding.task import (
    LATER,
    ImageFile,
    Later,
    Line,
    Output,
    Task,
    error_from_json,
)

ROOT = Path(__file__).resolve().parent.parent.parent  # the folder that the program is in
Made = Output | ImageError | Later
LOOK_SECONDS = 0.25  # between looks at whether the work is still wanted
# Beyond the limit of processor time: for a process that sleeps, or a machine that is overloaded.
PATIENCE = 6
MOST_OUTPUT_BYTES = 64 * 2**20  # the inputs of several networks
# What the process may know: no keys and no passwords of the service.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV")
PYTHON = "PYTHON"  # variables that begin so are passed on
SINGLE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class Ended(Exception):
    """The process ended, or was killed, during a task. ``status`` is that of ``subprocess``."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Unwanted(Exception):
    """The process was killed, because nobody waits for its task any more."""


@dataclass(frozen=True)
class Reply:
    """What was made of each file, and the processor time that it took, in seconds."""

    made: list[Made]
    seconds: float


@dataclass(frozen=True)
class ProcessLimits:
    """What a process may take: ``seconds`` of processor time and ``max_pixels`` for each image,
    ``memory_bytes`` in all."""

    seconds: float
    max_pixels: int
    memory_bytes: int


class DecodeProcess:
    """Starts a process; use it on one thread at a time. Raises OSError if it cannot be started."""

    def __init__(self, limits: ProcessLimits) -> None:
        self.limits = limits
        self.files_done = 0
        ours, theirs = socket.socketpair()
        self._line, self._file = Line(ours, LOOK_SECONDS), ImageFile.new()
        inherited = (theirs.fileno(), self._file.descriptor)
        numbers = [*inherited, limits.seconds, limits.max_pixels, limits.memory_bytes]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "service.decoding.child", *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=inherited,
                process_group=0,  # so that Ctrl-C in a terminal reaches the service alone
                env=_environment(),
            )
        except OSError:
            self._line.close()
            self._file.close()
            raise
        finally:
            theirs.close()

    def run(
        self,
        task: Task,
        files: Sequence[bytes],
        admit: Callable[[int], bool],
        wanted: Callable[[], bool],
    ) -> Reply:
        """Does a task for each file.

        ``admit`` is called before a large image is decoded, with its pixels, and says whether there
        is room; without room the image becomes LATER. Raises Ended; Unwanted if ``wanted`` becomes
        false.
        """
        patience = PATIENCE * self.limits.seconds * len(files)
        try:
            self._file.write(files)
            self._line.send({**task.to_json(), "lengths": [len(data) for data in files]})
            reply = self._reply(patience, wanted)
            while "pixels" in reply:
                if not wanted():
                    raise Unwanted
                self._line.send({"go": admit(reply["pixels"])})
                reply = self._reply(patience, wanted)
            lengths = [each.get("bytes", 0) for each in reply["files"]]
            if not all(0 <= length <= MOST_OUTPUT_BYTES for length in lengths):
                raise ValueError(f"outputs of {lengths} bytes")
            outputs = self._file.read(lengths)
            made = [_made(*each) for each in zip(reply["files"], outputs, strict=True)]
            seconds = float(reply["seconds"])
            if len(made) != len(files):
                raise ValueError(f"{len(made)} replies to {len(files)} files")
        # What an image that has taken over the process may reply counts as its end.
        except (EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Ended(self.close()) from error
        self.files_done += len(files)
        return Reply(made, seconds)

    def kill(self) -> None:
        """Kills the process, whatever thread uses it; that one gets Ended."""
        self._process.kill()

    def close(self) -> int:
        """Kills the process, and returns its exit status. A second call does nothing."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
            self._line.close()
            self._file.close()
        return self._process.returncode

    def _reply(self, patience: float, wanted: Callable[[], bool]) -> dict[str, Any]:
        until = time.monotonic() + patience
        while True:
            with suppress(TimeoutError):
                return self._line.receive()
            if not wanted():
                raise Unwanted
            if time.monotonic() > until:
                self._process.send_signal(signal.SIGPROF)


def _made(reply: dict[str, Any], data: bytes) -> Made:
    if "later" in reply:
        return LATER
    if "error" in reply:
        return error_from_json(reply)
    return Output(reply["width"], reply["height"], data)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if _is_passed_on(name)}
    # -P keeps the current folder, where anything may lie, off the path of imports.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**kept, **SINGLE_THREAD, "PYTHONPATH": path}


def _is_passed_on(name: str) -> bool:
    return name in ENVIRONMENT or name.startswith(PYTHON)
