"""Runs a real Postgres server on a temporary folder; under root as the user postgres."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import psycopg

from harness.processes import free_port

START_SECONDS = 60


def binaries() -> Path | None:
    """Returns the folder of Postgres's programs, or None if Postgres is not installed.

    It is the environment variable POSTGRES_BIN if set, else the newest version in Debian's
    layout, else the folder on PATH.
    """
    if named := os.environ.get("POSTGRES_BIN"):
        return Path(named)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_major)
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


def _major(path: Path) -> int:
    name = path.parent.parent.name
    return int(name) if name.isdecimal() else 0


class Postgres:
    """A context manager that makes a database cluster, runs its server and removes it again.

    ``port``: the server's TCP port on 127.0.0.1, where the user gpq needs no password.
    """

    def __enter__(self) -> "Postgres":
        programs = binaries()
        assert programs is not None
        self.root = Path(tempfile.mkdtemp(prefix="gpq-postgres-"))
        # initdb refuses to run as root.
        account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        as_user = {"user": account.pw_uid, "group": account.pw_gid} if account else {}
        if account:
            os.chown(self.root, account.pw_uid, account.pw_gid)
        data = self.root / "data"
        make = [programs / "initdb", "-D", data, "-U", "gpq", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run(make, check=True, capture_output=True, cwd=self.root, **as_user)
        self.port = free_port()
        self.programs, self.data, self.as_user = programs, data, as_user
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self) -> None:
        """Starts the server and returns when it accepts connections."""
        serve = [self.programs / "postgres", "-D", self.data, "-p", str(self.port)]
        serve += ["-k", self.root, "-h", "127.0.0.1"]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                serve, stdout=log, stderr=log, cwd=self.root, **self.as_user
            )
        self._wait()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops the server. SIGINT ends all sessions first; SIGQUIT stops at once, like a crash."""
        self.process.send_signal(how)
        self.process.wait(timeout=30)

    def signal_all(self, which: signal.Signals) -> None:
        """Sends a signal to the server and to the process of every connection."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in (self.process.pid, *map(int, children.split())):
            os.kill(pid, which)

    def create_database(self, tablespace: Path | None = None) -> str:
        """Creates an empty database and returns its URL.

        ``tablespace``: folder that holds the database's files; by default the cluster's own.
        """
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            options = ""
            if tablespace is not None:
                folder = tablespace / "tablespace"
                folder.mkdir()
                if self.as_user:
                    os.chown(folder, self.as_user["user"], self.as_user["group"])
                connection.execute(f"CREATE TABLESPACE \"{name}\" LOCATION '{folder}'")
                options = f'TABLESPACE "{name}"'
            connection.execute(f'CREATE DATABASE "{name}" {options}')
        return f"postgresql://gpq@127.0.0.1:{self.port}/{name}"

    def _conninfo(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=gpq dbname={database}"

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self._conninfo("postgres")).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.root / "log").read_text()) from None
                time.sleep(0.1)
