"""Loads a model in a process of its own before the database keeps it.

Engines are C++ programs that compile whatever graph they are given. If one crashes, hangs or takes
all memory, only that process ends. The process runs ``python -m service.models.trial``.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.errors import ArtifactError
from service.errors import Busy

SECONDS = 120  # how long a trial may take
MOST_BYTES = 8 * 2**30  # of its memory; on a GPU, drivers map more
NICENESS = 10  # beside searches of the service
_one = threading.Lock()


def load(folder: Path, options: Options) -> str:
    """Loads and verifies an artifact in a process of its own; returns the id of the model.

    Raises ArtifactError if the model cannot be used, Busy if another one is on trial.
    """
    if not _one.acquire(blocking=False):
        raise Busy("another model is being added; try again when it is")
    try:
        return _outcome(_run(folder, options))
    finally:
        _one.release()


def _run(folder: Path, options: Options) -> "subprocess.CompletedProcess[str]":
    names = ("engine", "precision", "device", "threads")
    arguments = json.dumps({name: getattr(options, name) for name in names})
    command = [sys.executable, "-m", "service.models.trial", str(folder), arguments, str(SECONDS)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
    )


def _outcome(done: "subprocess.CompletedProcess[str]") -> str:
    """Returns the id of the model. Raises ArtifactError."""
    match -done.returncode:
        case 0:
            outcome = json.loads(done.stdout.splitlines()[-1])  # engines may print too
            if "error" in outcome:
                raise ArtifactError(outcome["error"])
            return str(outcome["id"])
        case signal.SIGALRM:
            reason = f"it took longer than {SECONDS} s"
        case signal.SIGKILL:
            reason = "it was killed; it may need too much memory"
        case number if number > 0:
            reason = f"the engine crashed: {signal.strsignal(number)}"
        case _:
            reason = f"it ended with exit status {done.returncode}; the log may say why"
    raise ArtifactError(f"the model cannot be loaded: {reason}. Nothing was added")


def main() -> None:
    folder, arguments, seconds = sys.argv[1:]
    options = Options(**json.loads(arguments))
    signal.alarm(int(seconds))  # ends this process even if the service has ended
    os.nice(NICENESS)
    if options.device == "cpu":
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel kills it first
    try:
        outcome = {"id": engines.load(Path(folder), options).id}
    except ArtifactError as error:
        outcome = {"error": str(error)}
    except MemoryError:
        outcome = {"error": f"the model needs more than {MOST_BYTES} bytes of memory"}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
