"""A real Postgres server on a temporary folder, run as its own user."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import psycopg

START_SECONDS = 60


def binaries() -> Path | None:
    """The folder of a server's programs: POSTGRES_BIN, else the newest in Debian's layout,
    else on PATH."""
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
    def __enter__(self) -> "Postgres":
        programs = binaries()
        assert programs is not None
        self.root = Path(tempfile.mkdtemp(prefix="gpq-postgres-"))
        # initdb refuses root: the server runs as the package's own user.
        account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        as_user = {"user": account.pw_uid, "group": account.pw_gid} if account else {}
        if account:
            os.chown(self.root, account.pw_uid, account.pw_gid)
        data = self.root / "data"
        make = [programs / "initdb", "-D", data, "-U", "gpq", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run(make, check=True, capture_output=True, cwd=self.root, **as_user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.programs, self.data, self.as_user = programs, data, as_user
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self) -> None:
        serve = [self.programs / "postgres", "-D", self.data, "-p", str(self.port)]
        serve += ["-k", self.root, "-h", "127.0.0.1"]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                serve, stdout=log, stderr=log, cwd=self.root, **self.as_user
            )
        self._wait()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends sessions and stops; SIGQUIT stops at once, as a crash does."""
        self.process.send_signal(how)
        self.process.wait(timeout=30)

    def signal_all(self, which: signal.Signals) -> None:
        """To the server and the process of every connection."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in (self.process.pid, *map(int, children.split())):
            os.kill(pid, which)

    def create_database(self, tablespace: Path | None = None) -> str:
        """The URL of a new, empty database, kept in the folder ``tablespace`` where given."""
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
