"""Runs good and bad clients together for hours.

    python -m bench.attacks.soak                  two hours
    python -m bench.attacks.soak --minutes 10 --memory 2147483648

The service has default settings, SQLite and local originals. Good clients store, find, read and
delete images all the time (``good``). Once a minute one to four attacks, drawn at random from all
of ``attacks``, begin together and go on for ATTACK_SECONDS at most. After each of these rounds the
service gets time to become idle. After each tenth round there is a rest without attacks, and the
smallest memory seen in it is noted: free memory goes back to the system only once a minute, so a
single look says little. At the end,
and after a restart, the codes in memory must equal those of the database, and each image of the
good clients must be there, equal to the byte. Results are written to bench/results/soak.json after
each round.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tqdm import tqdm

from bench.attacks import watch
from bench.attacks.attacks import Attack, every
from bench.attacks.good import GoodClient, Seen
from bench.machine import describe
from bench.output import RESULTS, save
from gpq.pixels import formats
from harness.models import DEFAULT
from harness.server import Server

GOOD_CLIENTS = 3
ROUND_SECONDS, ATTACK_SECONDS, MOST_AT_ONCE = 60.0, 20.0, 4
IDLE_SHARE = 0.3  # of a processor, beyond what the good clients take
IDLE_PATIENCE = 35.0
CALM_SECONDS = 20.0  # without attacks, to see what the good clients take
ROUNDS_TO_REST, REST_SECONDS = 10, 75.0
WARM_RESTS = 1  # before the memory is compared
COMPARED_RESTS = 3
MIB = 2**20


class Soak:
    """The rounds of one soak, and what was seen in them."""

    def __init__(self, server: Server, clients: Sequence[GoodClient], seed: int) -> None:
        self.server, self.clients = server, clients
        self.rounds: list[dict[str, Any]] = []
        self.rests: list[dict[str, int]] = []
        self.good, self.bad = Seen(), Counter[str]()
        self._random = random.Random(seed)
        self._attacks = every()
        self._calm_share = self._share_of_calm()

    def round(self) -> None:
        """Runs some attacks together, waits until the service is idle, and notes the memory."""
        began = time.monotonic()
        names = self._random.sample(list(self._attacks), self._random.randint(1, MOST_AT_ONCE))
        with watch.Peak(self.server) as peak, ExitStack() as stack:
            attacks = {name: self._attack(stack, name) for name in names}
            with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
                list(pool.map(self._run, attacks, attacks.values()))
            stack.close()
            for attack in attacks.values():
                self.bad += attack.statuses
            took = time.monotonic() - began
            seen = self._seen()
            idle = watch.until_idle(self.server, self._calm_share + IDLE_SHARE, IDLE_PATIENCE)
        after = self._seen()
        self.good += seen
        self.good += after
        self.rounds.append(
            {
                "attacks": names,
                "attack_s": round(took, 1),
                "peak_mb": round(peak.bytes / MIB),
                "idle_after_s": None if idle is None else round(idle, 1),
                "good": dict(seen.statuses),
                "search_s": _times(seen.search_seconds),
            }
        )
        time.sleep(max(0.0, began + ROUND_SECONDS - time.monotonic()))
        if len(self.rounds) % ROUNDS_TO_REST == 0:
            self._rest()

    def results(self) -> dict[str, Any]:
        idle = [each["idle_after_s"] for each in self.rounds]
        return {
            "machine": describe(),
            "rounds": len(self.rounds),
            "good": dict(sorted(self.good.statuses.items())),
            "good_wrong": self.good.wrong[:20],
            "search_s": _times(self.good.search_seconds),
            "busy_after_s": _times(self.good.busy_after_seconds),
            "bad": dict(sorted(self.bad.items())),
            "memory_growth": growth(self.rests),
            "rests": self.rests,
            "peak_mb": max(each["peak_mb"] for each in self.rounds),
            "never_idle": idle.count(None),
            "idle_after_s": _times([each for each in idle if each is not None]),
        }

    def _rest(self) -> None:
        """Notes the smallest memory while only the good clients work."""
        until = time.monotonic() + REST_SECONDS
        least = self.server.rss()
        while time.monotonic() < until:
            time.sleep(1)
            least = min(least, self.server.rss())
        self.good += self._seen()
        processes = len(self.server.processes())
        self.rests.append({"rss_mb": round(least / MIB), "processes": processes})

    def _attack(self, stack: ExitStack, name: str) -> Attack:
        seed = f"{name} {len(self.rounds)}"
        return stack.enter_context(Attack(self.server, ATTACK_SECONDS, seed))

    def _run(self, name: str, attack: Attack) -> None:
        with suppress(OSError, httpx.HTTPError):  # the service closed a connection
            self._attacks[name](attack)

    def _share_of_calm(self) -> float:
        before = watch.processor_time(self.server)
        time.sleep(CALM_SECONDS)
        return (watch.processor_time(self.server) - before) / CALM_SECONDS

    def _seen(self) -> Seen:
        seen = Seen()
        for client in self.clients:
            seen += client.take_seen()
        return seen


def growth(rests: Sequence[dict[str, int]]) -> dict[str, float] | None:
    """Compares the memory of the first rests to that of the last, among those with the commonest
    number of processes: one more takes about 40 MB. Returns None as long as there are too few."""
    rests = rests[WARM_RESTS:]
    counts = Counter(each["processes"] for each in rests)
    processes = max(counts, key=counts.__getitem__, default=0)
    memory = [each["rss_mb"] for each in rests if each["processes"] == processes]
    if len(memory) < 2 * COMPARED_RESTS:
        return None
    first = statistics.median(memory[:COMPARED_RESTS])
    last = statistics.median(memory[-COMPARED_RESTS:])
    compared = {"processes": processes, "first_mb": first, "last_mb": last}
    return {**compared, "growth": round(last / first - 1, 4)}


def check(server: Server, clients: Sequence[GoodClient]) -> dict[str, Any]:
    """Compares what is stored with what the good clients stored."""
    sums = server.http.get("/stats", params={"checksum": True}).json()["checksum"]
    missing, differing = 0, 0
    for client in clients:
        for id, data in client.stored.items():
            reply = server.http.get(f"/images/{id}/content")
            missing += reply.status_code != 200
            differing += reply.status_code == 200 and reply.content != data
    return {
        "checksums_equal": sums["memory"] == sums["database"],
        "checksum": sums["memory"],
        "images": sum(len(client.stored) for client in clients),
        "missing": missing,
        "differing": differing,
    }


def _times(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    median, most = np.percentile(seconds, [50, 99])
    return {
        "n": len(seconds),
        "median": round(float(median), 3),
        "p99": round(float(most), 3),
        "slowest": round(max(seconds), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--memory", type=int, default=0, help="bytes of the control group")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json")
    options = parser.parse_args()
    formats.formats()  # lets Pillow write HEIF
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), model=DEFAULT)
        server.start()
        assert server.process is not None
        if options.memory:
            watch.confine(server.process.pid, options.memory)
        server.wait_until_ready()
        clients = [GoodClient(server.url, f"good{n}") for n in range(GOOD_CLIENTS)]
        with ExitStack() as running:
            for client in clients:
                running.enter_context(client)
            more: dict[str, Any] = {}
            soak = Soak(server, clients, options.seed)
            with tqdm(total=round(options.minutes * 60 / ROUND_SECONDS)) as bar:
                while time.monotonic() < until and server.process.poll() is None:
                    soak.round()
                    bar.update()
                    more = {"memory_limit": options.memory or None, "each": soak.rounds}
                    save({**soak.results(), **more}, options.out)
        ended = {"before_restart": check(server, clients), "exit_status": server.stop()}
        server.start()
        server.wait_until_ready()
        ended["after_restart"] = check(server, clients)
        server.stop()
        ended["uncertain"] = sum(len(client.uncertain) for client in clients)
        ended["tracebacks"] = server.printed().count("Traceback")
        save({**soak.results(), **ended, **more}, options.out)


if __name__ == "__main__":
    main()
