"""Load on a URL, by autocannon (node)."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = ("npx", "--yes", "autocannon@8")
CONNECTIONS = 16  # enough to keep every server busy


@dataclass(frozen=True)
class Load:
    """What came of it. Latencies in ms, of 2xx replies too slow to be sent on time included."""

    rate: float | None
    replies_a_second: float
    statuses: dict[str, int]
    errors: int
    p50_ms: float
    p99_ms: float


def require() -> None:
    """Raises SystemExit without node."""
    if shutil.which("npx") is None:
        raise SystemExit("bench.service needs node: npx runs autocannon, the load generator")


def run(
    url: str, picture: Path, seconds: float, connections: int, rate: float | None = None
) -> Load:
    """Post a form with the picture to it, on so many connections as fast as replies come; with a
    rate so many in each second, at its beginning."""
    command = [*COMMAND, "-j", "-m", "POST", "-d", str(seconds), "-c", str(connections)]
    form = {"image": {"type": "file", "path": str(picture)}}
    command += ["--form", json.dumps(form), *(["-R", str(round(rate, 1))] if rate else [])]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return Load(
        rate,
        round(found["requests"]["total"] / found["duration"], 1),
        {status: counted["count"] for status, counted in found["statusCodeStats"].items()},
        found["errors"] + found["timeouts"],
        found["latency"]["p50"],
        found["latency"]["p99"],
    )


def capacity(name: str, url: str, image: Path, seconds: float) -> float:
    """Returns the replies a second to requests on CONNECTIONS connections.

    Raises SystemExit if a reply is not a 200; ``name``: what the message calls the server.
    """
    measured = run(url, image, seconds, CONNECTIONS)
    if measured.statuses.keys() != {"200"} or measured.errors:
        raise SystemExit(f"{name} failed: {measured}")
    return measured.replies_a_second
