"""Watches the memory and the processor time of a service with its processes."""

import threading
import time
from contextlib import suppress
from pathlib import Path

from harness.processes import children, processor_seconds
from harness.server import Server

GROUPS = Path("/sys/fs/cgroup")
GROUP = "gpq-attacks"
LOOK_SECONDS = 0.1  # between looks at the memory


class Peak:
    """Watches the memory in a thread. ``bytes``: the most so far."""

    def __init__(self, server: Server) -> None:
        self.server, self.bytes, self._done = server, 0, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            with suppress(OSError):
                self.bytes = max(self.bytes, self.server.rss())


def processor_time(server: Server) -> float:
    """Returns the seconds that the service and its processes have taken."""
    assert server.process is not None
    total = 0.0
    for process in (server.process.pid, *children(server.process.pid)):
        with suppress(OSError):
            total += processor_seconds(process)
    return total


def until_idle(server: Server, share: float, patience: float) -> float | None:
    """Waits until the service takes less than a share of a processor for two seconds.

    Returns the seconds until those two; None after ``patience`` seconds.
    """
    since, quiet = time.monotonic(), 0
    while time.monotonic() - since < patience:
        before, began = processor_time(server), time.monotonic()
        time.sleep(1)
        busy = (processor_time(server) - before) / (time.monotonic() - began) >= share
        quiet = 0 if busy else quiet + 1
        if quiet == 2:
            return max(0.0, time.monotonic() - since - 2)
    return None


def confine(process: int, memory: int) -> None:
    """Moves a process to a control group with so many bytes (as root, with cgroup v1 or v2)."""
    if (GROUPS / "memory").is_dir():
        group, limit = GROUPS / "memory" / GROUP, "memory.limit_in_bytes"
    else:
        group, limit = GROUPS / GROUP, "memory.max"
    group.mkdir(exist_ok=True)
    (group / limit).write_text(str(memory))
    (group / "cgroup.procs").write_text(str(process))
