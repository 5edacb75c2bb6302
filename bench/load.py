"""Load on a URL, by autocannon (node)."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOUNDARY = "gpq-bench"
COMMAND = ("npx", "--yes", "autocannon@8")


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


def body(picture: bytes, field: str = "image") -> bytes:
    """Of a form with one picture."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def run(url: str, form: Path, seconds: float, connections: int, rate: float | None = None) -> Load:
    """Post the form to it: as fast as replies come, or so many a second, whether they do or not."""
    command = [*COMMAND, "-j", "-m", "POST", "-d", str(seconds), "-c", str(connections)]
    command += ["-H", f"content-type=multipart/form-data; boundary={BOUNDARY}", "-i", str(form)]
    command += ["-R", str(round(rate, 1))] if rate else []
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
