"""Records who changed what, as JSON lines in a file."""

import getpass
import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MODE = 0o600
log = logging.getLogger("gpq.service")


class Audit:
    """Appends a line for each write and each act of administration.

    ``path``: the file, or None to record nothing. It is opened for each line, so that it can be
    moved away while the service runs. If it cannot be written, the log has the line.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._writing = threading.Lock()

    def check(self) -> None:
        """Raises OSError if the file cannot be written."""
        if self.path is not None:
            os.close(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, MODE))

    def record(self, who: str, action: str, **more: Any) -> None:
        """``action``: a method and a route, or a command. ``more``: ids, status, address."""
        if self.path is None:
            return
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "who": who, "action": action, **more}) + "\n"
        try:
            with self._writing:
                file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, MODE)
                try:
                    os.write(file, line.encode())
                finally:
                    os.close(file)
        except OSError as error:
            log.error("the audit log cannot be written: %s: %s", error.strerror, line.strip())


def who_runs_commands() -> str:
    """Returns the name of the user who runs this process, for the audit log."""
    try:
        return f"{getpass.getuser()} (command)"
    except (KeyError, OSError):  # a user without a name, as in a container
        return f"user {os.getuid()} (command)"
