"""Posts a form at a fixed rate, by Locust (https://locust.io), in a separate process.

Locust's users post once per period of about a second, evenly spaced, each on its own connection. A
user does not wait for the replies to other users. If a reply takes longer than the period, its
user's next post is late; such replies are counted.
"""

import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

PLAN = "BENCH_PLAN"  # environment variable with the path of the file that configures the users


@dataclass(frozen=True)
class Sent:
    """The replies to the posts.

    ``rate``: posts a second. ``late``: number of replies that took longer than a period. Latencies
    are from the sending of a request to the end of its reply, in milliseconds.
    """

    rate: float
    replies: int
    failed: int
    late: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


def run(url: str, image: bytes, rate: float, seconds: float) -> Sent:
    """Posts the form field ``image`` at a rate per second.

    Raises CalledProcessError if Locust fails.
    """
    form = httpx.Request("POST", url, files={"image": ("image.jpg", image, "image/jpeg")})
    users = max(1, math.ceil(rate))
    with tempfile.TemporaryDirectory() as name:
        body, plan, found = (Path(name) / part for part in ("body", "plan.json", "found.json"))
        body.write_bytes(form.read())
        media_type = form.headers["content-type"]
        about = {"url": url, "body": str(body), "type": media_type, "period": users / rate}
        plan.write_text(json.dumps({**about, "users": users, "found": str(found)}))
        command = [sys.executable, "-m", "locust", "-f", __file__, "--headless", "--only-summary"]
        command += ["-u", str(users), "-r", str(users), "-t", f"{math.ceil(seconds)}s"]
        command += ["--host", url, "--stop-timeout", "10", "--exit-code-on-error", "0"]
        environment = {**os.environ, PLAN: str(plan)}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        replies = json.loads(found.read_text())
    ms, good = np.array(replies["ms"]), np.array(replies["good"])
    p50, p99, worst = (round(float(np.quantile(ms, q)), 1) for q in (0.5, 0.99, 1))
    late = int((ms > 1000 * users / rate).sum())
    return Sent(round(rate, 1), len(ms), int((~good).sum()), late, p50, p99, worst)


if PLAN in os.environ:  # true in Locust's process, which loads this file
    from gevent import sleep
    from locust import FastHttpUser, events, task

    _plan: dict[str, Any] = json.loads(Path(os.environ[PLAN]).read_text())
    _body = Path(_plan["body"]).read_bytes()
    _ms: list[float] = []
    _good: list[bool] = []
    _numbers = itertools.count()

    class PostingUser(FastHttpUser):
        def on_start(self) -> None:
            first = next(_numbers) / _plan["users"] * _plan["period"]
            self.due = time.monotonic() + first
            sleep(first)

        def wait_time(self) -> float:
            self.due += _plan["period"]
            return max(0.0, self.due - time.monotonic())

        @task
        def post(self) -> None:
            self.client.post(_plan["url"], data=_body, headers={"content-type": _plan["type"]})

    @events.request.add_listener
    def _count(response_time: float, exception: Exception | None, **_: object) -> None:
        _ms.append(response_time)
        _good.append(exception is None)

    @events.quitting.add_listener
    def _write(**_: object) -> None:
        Path(_plan["found"]).write_text(json.dumps({"ms": _ms, "good": _good}))
