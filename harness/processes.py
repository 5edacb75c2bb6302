"""Free ports, environment variables and resident memory of the processes that are started."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from harness import ROOT

import_path = [str(ROOT)]  # of Python in the processes that are started


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**settings: object) -> dict[str, str]:
    """Returns the environment for a process of the service.

    It is this process's environment, but the given settings are the only ``GPQ_*`` variables:
    ``port=8000`` becomes ``GPQ_PORT=8000``. Python imports this repository's packages
    (``import_path``).
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GPQ_")}
    own = {f"GPQ_{name.upper()}": str(value) for name, value in settings.items()}
    return {**inherited, "PYTHONPATH": os.pathsep.join(import_path), **own}


def resident_bytes(process: int | str = "self") -> int:
    """Returns the resident memory of a process in bytes; ``process``: its id."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes(process: int) -> int:
    """Returns the largest resident memory that a process had, in bytes (proc(5), VmHWM)."""
    try:
        status = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0
    peaks = [int(line.split()[1]) for line in status if line.startswith("VmHWM:")]
    return sum(peaks) * 1024


def children(process: int) -> list[int]:
    """Returns the processes that a process has started, and that still run."""
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found += map(int, thread.read_text().split())
    return found


def processor_seconds(process: int) -> float:
    """Returns the processor time that a process has taken, with its ended children's."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
