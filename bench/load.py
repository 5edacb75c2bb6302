"""Sends as many requests as a server can answer, by the npm package autocannon."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = ("npx", "--yes", "autocannon@8")
CONNECTIONS = 16  # on which capacities are measured


@dataclass(frozen=True)
class Load:
    """The replies to the requests.

    ``rate``: requests a second, or None if they were sent as fast as replies came. ``statuses``:
    number of replies by HTTP status. ``errors``: broken connections and timeouts. Latencies are
    the times until 2xx replies in milliseconds; with a rate they include the delay until the
    request could be sent.
    """

    rate: float | None
    replies_a_second: float
    statuses: dict[str, int]
    errors: int
    p50_ms: float
    p99_ms: float


def require() -> None:
    """Raises SystemExit if npx is not installed, which runs autocannon."""
    if shutil.which("npx") is None:
        raise SystemExit("npx was not found; install Node.js, which runs the load generator")


def run(url: str, image: Path, seconds: float, connections: int, rate: float | None = None) -> Load:
    """Posts a form with an image again and again.

    Each connection sends its next request when it has a reply. With a ``rate``, that many requests
    are sent at the beginning of every second.
    """
    command = [*COMMAND, "-j", "-m", "POST", "-d", str(seconds), "-c", str(connections)]
    form = {"image": {"type": "file", "path": str(image)}}
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

    Raises SystemExit if a reply is not a 200; ``name``: the server's name in the message.
    """
    measured = run(url, image, seconds, CONNECTIONS)
    if measured.statuses.keys() != {"200"} or measured.errors:
        raise SystemExit(f"{name} failed: {measured}")
    return measured.replies_a_second
