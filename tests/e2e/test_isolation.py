"""Tests that a start opens no connection elsewhere, and leaves no process and no file behind."""

import ctypes
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.images import png
from harness.models import fields, make_artifact
from harness.processes import children
from harness.server import Server
from tests.waiting import until

CLONE_NEWNET = 0x40000000
LOOPBACK = "0100007F"  # as in /proc/net/tcp
# A network whose packets all leave through ``out``, and reach nobody.
NETWORK = """
set -e
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
ip link set lo up
ip link add out type veth peer name beyond
ip link set out up
ip link set beyond up
ip address add 192.0.2.1/24 dev out
ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev out
ip route add default via 192.0.2.2
"""


def enter_network() -> str:
    """Moves this thread into a network of its own; returns why that is impossible, or ""."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_NEWNET) != 0:
        return f"a network namespace needs root: {os.strerror(ctypes.get_errno())}"
    made = subprocess.run(["sh", "-c", NETWORK], capture_output=True, text=True, check=False)
    return f"a network needs the command ip: {made.stderr}" if made.returncode else ""


def packets(pid: int | str) -> int:
    """Returns how many packets have left through ``out`` in the network of a process."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    (line,) = (line for line in lines if line.split(":")[0].strip() == "out")
    return int(line.split(":")[1].split()[9])


def foreign_sockets(pid: int) -> list[str]:
    """Returns the TCP and UDP sockets in the network of a process that are not of loopback."""
    rows = [
        row
        for table in ("tcp", "udp", "tcp6", "udp6")
        if (path := Path(f"/proc/{pid}/net/{table}")).exists()
        for row in path.read_text().splitlines()[1:]
    ]
    return [row for row in rows if not row.split()[1].startswith(f"{LOOPBACK}:")]


def others(pid: int) -> list[int]:
    """Returns the processes that a service has started, except those that decode images."""
    return [
        child
        for child in children(pid)
        if b"service.decoding.child" not in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def files(*folders: Path) -> list[str]:
    return sorted(str(path) for folder in folders for path in folder.rglob("*"))


def check(folder: Path, model: Path, other: Path) -> str:
    """Starts and uses a service in a network of its own; returns why that is impossible, or ""."""
    if reason := enter_network():
        return reason
    home, temporary = folder / "home", folder / "tmp"
    server = Server(folder, model=model, decode_threads=2)
    server.variables = {"HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": ""}
    with server:
        assert server.process is not None
        pid = server.process.pid
        until(lambda: len(children(pid)) == 2 and others(pid) == [])
        assert (files(home, temporary), others(pid)) == ([], [])
        assert server.index(png(1)).status_code == 200
        assert server.search(png(1)).status_code == 200
        assert server.http.post("/models", files=fields(other)).status_code == 201
        assert (files(home, temporary), others(pid)) == ([], [])
        assert foreign_sockets(pid) == []
        assert packets(pid) == 0
        # The counter counts.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.sendto(b"x", ("198.51.100.1", 53))
        assert packets(pid) == 1
        assert sorted(path.name for path in folder.iterdir()) == ["data", "home", "log", "tmp"]
        decoding = children(pid)
        assert len(decoding) == 2
    assert not any(Path(f"/proc/{process}").exists() for process in decoding)
    assert files(home, temporary) == []
    return ""


def test_a_service_talks_to_nobody_and_leaves_nothing_behind(
    random_model: Path, tmp_path: Path
) -> None:
    make_artifact(tmp_path / "other", seed=9, M=6)
    folder = tmp_path / "service"
    for name in ("", "home", "tmp"):
        (folder / name).mkdir()
    with ThreadPoolExecutor(1) as thread:  # only this thread enters the other network
        reason = thread.submit(check, folder, random_model, tmp_path / "other").result()
    if reason:
        pytest.skip(reason)
