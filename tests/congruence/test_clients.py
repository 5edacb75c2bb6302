"""Tests that sixteen clients at once cause no lost update, no wrong hit and no 5xx."""

import random
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from harness.images import png
from harness.server import Server
from tests.oracle import Oracle

CLIENTS = 16
SECONDS = 20
IDS = 12  # ids of one client
SEEDS = 24


@dataclass
class Ledger:
    """Records the versions that clients requested and the numbers acknowledged, by id.

    A version is (its number, the seed of its image); the seed None means deleted.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    requested: dict[str, list[tuple[int, int | None]]] = field(
        default_factory=lambda: defaultdict(lambda: [(0, None)])
    )
    confirmed: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def request(self, id: str, seed: int | None) -> int:
        """Adds a version that a client is about to write, and returns its number."""
        with self.lock:
            number = self.requested[id][-1][0] + 1
            self.requested[id].append((number, seed))
            return number

    def possible(self, before: dict[str, int]) -> dict[str, dict[int, int | None]]:
        """Returns, by id, the versions that a search may find that began after ``before``."""
        with self.lock:
            return {
                id: {number: seed for number, seed in versions if number >= before.get(id, 0)}
                for id, versions in self.requested.items()
            }

    def acknowledged(self) -> dict[str, int]:
        with self.lock:
            return dict(self.confirmed)


class Client(threading.Thread):
    def __init__(self, number: int, url: str, ledger: Ledger, oracle: Oracle) -> None:
        super().__init__()
        self.random = random.Random(number)
        self.ids = [f"c{number}-{n}" for n in range(IDS)]
        self.http = httpx.Client(base_url=url, timeout=60)
        self.ledger, self.oracle = ledger, oracle
        self.errors: list[str] = []
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        deadline = time.monotonic() + SECONDS
        try:
            while time.monotonic() < deadline and not self.errors:
                act = self.random.choices([self.put, self.delete, self.search], [5, 2, 4])[0]
                act()
                self.counts[act.__name__] += 1
        except Exception as error:
            self.errors.append(repr(error))
        self.http.close()

    def put(self) -> None:
        id, seed = self.random.choice(self.ids), self.random.randrange(SEEDS)
        number = self.ledger.request(id, seed)
        # The version in the metadata shows which put a hit comes from.
        fields = {"ids": f'["{id}"]', "metadata": f'[{{"version":{number}}}]'}
        reply = self.http.post("/index", files={"images": png(seed)}, data=fields)
        self._expect(reply, 200)
        self.ledger.confirmed[id] = number

    def delete(self) -> None:
        id = self.random.choice(self.ids)
        exists = self.ledger.requested[id][-1][1] is not None
        number = self.ledger.request(id, None)
        self._expect(self.http.delete(f"/images/{id}"), 204 if exists else 404)
        self.ledger.confirmed[id] = number

    def search(self) -> None:
        query = self.random.randrange(SEEDS)
        before = self.ledger.acknowledged()
        reply = self.http.post("/search", files={"image": png(query)}, data={"k": 1000})
        self._expect(reply, 200)
        possible = self.ledger.possible(before)
        hits = reply.json()["results"]
        found = Counter(hit["id"] for hit in hits)
        if found and found.most_common(1)[0][1] > 1:
            self.errors.append(f"found twice: {found.most_common(1)}")
        for id, versions in possible.items():
            if id not in found and None not in versions.values():
                self.errors.append(f"{id} was not found; its possible versions are {versions}")
        for hit in hits:
            seed = possible[hit["id"]].get(hit["metadata"]["version"])
            if seed is None:
                self.errors.append(f"{hit} is not a possible version of {possible[hit['id']]}")
            elif abs(hit["score"] - self.oracle.score(query, seed)) > 1e-5:
                self.errors.append(f"{hit} does not have the score of image {seed}")

    def _expect(self, reply: httpx.Response, status: int) -> None:
        if reply.status_code != status:
            self.errors.append(f"{reply.request.url}: {reply.status_code} {reply.text}")


def test_sixteen_clients_at_once_see_a_consistent_catalogue(
    server: Server, random_model: Path
) -> None:
    oracle = Oracle(random_model)
    for query in range(SEEDS):
        for stored in range(SEEDS):
            oracle.score(query, stored)
    ledger = Ledger()
    clients = [Client(number, server.url, ledger, oracle) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [error for client in clients for error in client.errors] == []
    counts = sum((client.counts for client in clients), Counter())
    assert min(counts.values()) > 20
    print(counts)
    stored = {
        image["id"]: image["metadata"]["version"]
        for image in server.http.get("/images", params={"limit": 1000}).json()["images"]
    }
    last = {id: versions[-1] for id, versions in ledger.requested.items()}
    assert stored == {id: number for id, (number, seed) in last.items() if seed is not None}
    stats = server.http.get("/stats", params={"checksum": True}).json()
    assert stats["checksum"]["memory"] == stats["checksum"]["database"]
    assert stats["images"] == len(stored)
    for id, (_, seed) in last.items():
        if seed is not None:
            assert server.http.get(f"/images/{id}/content").content == png(seed)


@pytest.fixture(autouse=True)
def _empty(server: Server) -> None:
    assert server.http.get("/stats").json()["images"] == 0
