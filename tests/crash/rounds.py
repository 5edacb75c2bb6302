"""Kills the service at random moments, restarts it, and checks that no acknowledged write is lost.

    python -m tests.crash --rounds 100 --database sqlite

Clients put images, patch their metadata, delete and search at the same time. After each kill and
restart, the image of every acknowledged put must be listed, found by a search and equal to its
original, and no deleted image may be listed. A write without a reply may have happened or not.
The index in memory must equal the database, and the sweep must set aside every original that no
image uses.
"""

import json
import os
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from harness.images import png
from harness.server import Server
from service.originals.keys import ASIDE

WRITERS = 4
SEARCHERS = 2
IDS = 40  # per writer
MOST_WRITES = 100  # acknowledged writes in a round before the kill
LONGEST_ROUND_SECONDS = 60
LONGEST_DELAY_SECONDS = 0.1  # so that not every kill comes right after a reply
LONGEST_START_SECONDS = 4.0
KILLED_WHILE_STARTING = 0.2  # share of the rounds that also kill the restarting service
OLD_SECONDS = 7200  # longer than the grace period of the sweep
SETTLE_SECONDS = 30

# The seed of an image and the version in its metadata; None if no image has the id.
State = tuple[int, int] | None
UNKNOWN: State = (-1, -1)


@dataclass
class Tally:
    """Counts errors, which must stay 0, rounds and acknowledged writes.

    ``lost``: acknowledged puts that are missing or damaged. ``resurrected``: deleted images that
    exist. ``drift``: differences between memory and database. ``orphans``: rounds after which
    originals without an image remained. ``wrong``: messages about these errors and about
    unexpected replies. ``acknowledged``: numbers of acknowledged writes by HTTP method.
    """

    lost: int = 0
    resurrected: int = 0
    drift: int = 0
    orphans: int = 0
    wrong: list[str] = field(default_factory=list)
    acknowledged: Counter[str] = field(default_factory=Counter)
    rounds: int = 0

    @property
    def clean(self) -> bool:
        return not (self.lost or self.resurrected or self.drift or self.orphans or self.wrong)

    def report(self) -> dict[str, object]:
        return {
            "rounds": self.rounds,
            "lost": self.lost,
            "resurrected": self.resurrected,
            "drift": self.drift,
            "orphans": self.orphans,
            "wrong": self.wrong[:10],
            "acknowledged": dict(self.acknowledged),
        }


class Rounds:
    """Rounds of traffic, kill, restart and check on one database."""

    def __init__(self, folder: Path, model: Path, database_url: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.server = Server(folder, model=model, database_url=database_url)
        self.originals = folder / "data" / "images"
        self.states: dict[str, State] = {}  # after the last acknowledged write
        self.pending: dict[str, State] = {}  # requested, not acknowledged
        self.version = 0
        self.tally = Tally()

    def run(self, rounds: int) -> Tally:
        self.server.start()
        self.server.wait_until_ready()
        for _ in range(rounds):
            self._traffic(self.random.randrange(MOST_WRITES))
            if self.random.random() < KILLED_WHILE_STARTING:
                self.server.start()
                time.sleep(self.random.uniform(0.5, LONGEST_START_SECONDS))
                self.server.kill()
            self._age_originals()
            self.server.start()
            self.server.wait_until_ready()
            self._verify()
            self.tally.rounds += 1
        self.server.stop()
        return self.tally

    def _traffic(self, writes: int) -> None:
        """Runs all clients, and kills the service shortly after ``writes`` acknowledged writes."""
        wanted = self.tally.acknowledged.total() + writes
        deadline = time.monotonic() + LONGEST_ROUND_SECONDS
        seeds = [self.random.random() for _ in range(WRITERS + SEARCHERS)]
        clients = [
            threading.Thread(target=self._write, args=(n, random.Random(seeds[n])))
            for n in range(WRITERS)
        ] + [threading.Thread(target=self._search, args=(seed,)) for seed in seeds[WRITERS:]]
        for client in clients:
            client.start()
        while self.tally.acknowledged.total() < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(self.random.uniform(0, LONGEST_DELAY_SECONDS))
        self.server.kill()
        for client in clients:
            client.join()

    def _write(self, number: int, chance: random.Random) -> None:
        with httpx.Client(base_url=self.server.url, timeout=30) as http:
            while True:
                ids = chance.sample([f"w{number}-{n}" for n in range(IDS)], chance.choice([1, 3]))
                act = chance.choices([self._put, self._delete, self._patch], [6, 3, 1])[0]
                try:
                    act(http, ids, chance)
                except httpx.TransportError:
                    return  # killed

    def _put(self, http: httpx.Client, ids: list[str], chance: random.Random) -> None:
        asked = {id: (chance.randrange(10**6), self._next_version()) for id in ids}
        self.pending |= asked
        fields = {
            "ids": json.dumps(ids),
            "metadata": json.dumps([{"version": version} for _, version in asked.values()]),
        }
        files = [("images", (id, png(seed))) for id, (seed, _) in asked.items()]
        self._acknowledge(http.post("/index", files=files, data=fields), asked, 200)

    def _delete(self, http: httpx.Client, ids: list[str], chance: random.Random) -> None:
        id = ids[0]
        exists = self.states.get(id) is not None
        self.pending[id] = None
        self._acknowledge(http.delete(f"/images/{id}"), {id: None}, 204 if exists else 404)

    def _patch(self, http: httpx.Client, ids: list[str], chance: random.Random) -> None:
        state = self.states.get(ids[0])
        if state is None:
            return
        asked = {ids[0]: (state[0], self._next_version())}
        self.pending |= asked
        reply = http.patch(f"/images/{ids[0]}", json={"metadata": {"version": asked[ids[0]][1]}})
        self._acknowledge(reply, asked, 200)

    def _acknowledge(self, reply: httpx.Response, asked: dict[str, State], status: int) -> None:
        if reply.status_code != status:
            self.tally.wrong.append(f"{reply.request.url}: {reply.status_code} {reply.text}")
            return
        self.states |= asked
        for id in asked:
            del self.pending[id]
        self.tally.acknowledged[reply.request.method] += len(asked)

    def _search(self, seed: float) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=self.server.url, timeout=30) as http:
            while True:
                query = png(chance.randrange(10**6))
                try:
                    reply = http.post("/search", files={"image": query}, data={"k": 1000})
                except httpx.TransportError:
                    return
                if reply.status_code != 200:
                    self.tally.wrong.append(f"/search: {reply.status_code} {reply.text}")

    def _next_version(self) -> int:
        self.version += 1
        return self.version

    def _age_originals(self) -> None:
        old = time.time() - OLD_SECONDS
        for path in self.originals.rglob("*"):
            os.utime(path, (old, old))

    def _verify(self) -> None:
        http = self.server.http
        listed = http.get("/images", params={"limit": 1000}).json()["images"]
        stored = {image["id"]: image for image in listed}
        for id in self.states.keys() | self.pending.keys() | stored.keys():
            self._verify_state(id, stored.get(id))
        hits = self.server.search(png(0), k=1000).json()["results"]
        if sorted(hit["id"] for hit in hits) != sorted(stored):
            self.tally.drift += 1
        checksum = http.get("/stats", params={"checksum": True}).json()["checksum"]
        if checksum["memory"] != checksum["database"]:
            self.tally.drift += 1
        self._verify_originals(http, stored)

    def _verify_state(self, id: str, image: dict | None) -> None:
        acknowledged = self.states.get(id)
        possible = [acknowledged]
        if id in self.pending:
            possible.append(self.pending.pop(id))
        if image is None:
            seen = None
        else:
            version = image["metadata"]["version"]
            seen = next((s for s in possible if s and s[1] == version), UNKNOWN)
        if seen not in possible:
            if acknowledged is None:
                self.tally.resurrected += 1
            else:
                self.tally.lost += 1
            self.tally.wrong.append(f"{id} has the state {seen}, expected one of {possible}")
        self.states[id] = seen

    def _verify_originals(self, http: httpx.Client, stored: dict[str, dict]) -> None:
        """Checks that every original is complete, and that the sweep at the start of the service
        leaves no others, except files that it has set aside."""
        known = {id: state[0] for id in stored if (state := self.states[id]) != UNKNOWN}
        for id, seed in known.items():
            if http.get(f"/images/{id}/content").content != png(seed):
                self.tally.lost += 1
                self.tally.wrong.append(f"the original of {id} is not the image with seed {seed}")
        if len(known) < len(stored):
            return
        needed = len(set(known.values()))
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._count_originals() != needed:
            if time.monotonic() > deadline:
                self.tally.orphans += 1
                return
            time.sleep(0.05)

    def _count_originals(self) -> int:
        """Counts the files in the image store, except those that the last sweep has set aside."""
        count = 0
        for path in self.originals.glob("??/*"):
            with suppress(FileNotFoundError):  # the sweep has just deleted it
                recent = time.time() - path.stat().st_mtime < OLD_SECONDS / 2
                count += not (recent and path.suffix == ASIDE)
        return count
