"""Compares any sequence of put, replace, describe, delete and search with a dictionary."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from harness.images import png
from harness.server import Server
from tests.oracle import Oracle

IDS_ALL = [f"id-{n}" for n in range(6)]
IDS = st.sampled_from(IDS_ALL)
SEEDS = st.integers(0, 7)
FILTERS = st.sampled_from(
    [
        ({"n": 1}, lambda n: n == 1),
        ({"n": {"lt": 2}}, lambda n: n is not None and n < 2),
        ({"n": {"exists": False}}, lambda n: n is None),
        ({"not": {"n": {"any": [0, 3]}}}, lambda n: n not in (0, 3)),
        ({"or": [{"n": None}, {"n": {"gte": 3}}]}, lambda n: n is None or n >= 3),
    ]
)
Chosen = Callable[[int | None], bool]
METADATA = st.none() | st.fixed_dictionaries({"n": st.integers(0, 3)})


@dataclass
class Kept:
    seed: int
    metadata: dict | None
    order: int


class Machine(RuleBasedStateMachine):
    server: Server
    oracle: Oracle

    @initialize()
    def empty(self) -> None:
        for image in self.server.http.get("/images", params={"limit": 1000}).json()["images"]:
            self.server.http.delete(f"/images/{image['id']}")
        self.kept: dict[str, Kept] = {}
        self.puts = 0

    @rule(entries=st.lists(st.tuples(IDS, SEEDS), min_size=1, max_size=4, unique_by=lambda e: e[0]))
    def put(self, entries: list[tuple[str, int]]) -> None:
        self._put(entries, None)

    @rule(
        entries=st.lists(
            st.tuples(IDS, SEEDS, METADATA), min_size=1, max_size=4, unique_by=lambda e: e[0]
        )
    )
    def put_with_metadata(self, entries: list[tuple[str, int, dict | None]]) -> None:
        self._put([entry[:2] for entry in entries], [entry[2] for entry in entries])

    def _put(self, entries: list[tuple[str, int]], metadata: list[dict | None] | None) -> None:
        fields = {"ids": json.dumps([id for id, _ in entries])}
        if metadata is not None:
            fields["metadata"] = json.dumps(metadata)
        reply = self.server.index(*(png(seed) for _, seed in entries), **fields)
        assert reply.status_code == 200, reply.text
        expected = []
        for place, (id, seed) in enumerate(entries):
            old = self.kept.get(id)
            new = old.metadata if metadata is None and old else None
            if metadata is not None:
                new = metadata[place]
            if old is None or old.seed != seed:
                self.puts += 1
                self.kept[id] = Kept(seed, new, self.puts)
                expected.append("created" if old is None else "replaced")
            else:
                expected.append("unchanged" if old.metadata == new else "replaced")
                old.metadata = new
        assert [item["status"] for item in reply.json()["items"]] == expected

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        reply = self.server.http.delete(f"/images/{id}")
        assert reply.status_code == (204 if self.kept.pop(id, None) else 404)

    @rule(id=IDS, metadata=METADATA)
    def describe(self, id: str, metadata: dict | None) -> None:
        reply = self.server.http.patch(f"/images/{id}", json={"metadata": metadata})
        assert reply.status_code == (200 if id in self.kept else 404)
        if id in self.kept:
            self.kept[id].metadata = metadata

    @rule(seed=SEEDS, k=st.integers(1, 8))
    def search(self, seed: int, k: int) -> None:
        reply = self.server.search(png(seed), k=k)
        assert reply.status_code == 200, reply.text
        self._assert_results(reply.json()["results"], seed, k)

    @rule(seeds=st.lists(SEEDS, min_size=1, max_size=3), k=st.integers(1, 8))
    def search_batch(self, seeds: list[int], k: int) -> None:
        files = [("images", (str(n), png(seed))) for n, seed in enumerate(seeds)]
        reply = self.server.http.post("/search/batch", files=files, data={"k": k})
        for seed, entry in zip(seeds, reply.json()["queries"], strict=True):
            self._assert_results(entry["results"], seed, k)

    @rule(seed=SEEDS, k=st.integers(1, 8), chosen=FILTERS)
    def search_filtered(self, seed: int, k: int, chosen: tuple[dict, Chosen]) -> None:
        reply = self.server.search(png(seed), k=k, filter=json.dumps(chosen[0]))
        assert reply.status_code == 200, reply.text
        self._assert_results(reply.json()["results"], seed, k, chosen[1])

    @rule(id=IDS, chosen=FILTERS)
    def search_filtered_by_id(self, id: str, chosen: tuple[dict, Chosen]) -> None:
        reply = self.server.http.post("/search", json={"id": id, "k": 8, "filter": chosen[0]})
        assert reply.status_code == (200 if id in self.kept else 404)
        if id in self.kept:
            self._assert_results(reply.json()["results"], self.kept[id].seed, 8, chosen[1])

    @rule(chosen=FILTERS)
    def list_filtered(self, chosen: tuple[dict, Chosen]) -> None:
        reply = self.server.http.get("/images", params={"filter": json.dumps(chosen[0])})
        expected = [id for id in self.kept if chosen[1](self._n(id))]
        found = [image["id"] for image in reply.json()["images"]]
        assert found == sorted(expected, key=lambda id: self.kept[id].order)

    def _n(self, id: str) -> int | None:
        return (self.kept[id].metadata or {}).get("n")

    @rule(seed=SEEDS, k=st.integers(1, 3), chosen=FILTERS)
    def search_page_by_page(self, seed: int, k: int, chosen: tuple[dict, Chosen]) -> None:
        reply = self.server.search(png(seed), k=k, pages=True, filter=json.dumps(chosen[0]))
        page, hits = reply.json(), reply.json()["results"]
        while page["next_cursor"]:
            cursor = {"cursor": page["next_cursor"]}
            page = self.server.http.post("/search", json=cursor).json()
            hits += page["results"]
        assert page["total"] == len(hits)
        self._assert_results(hits, seed, len(IDS_ALL), chosen[1])

    @rule(seed=SEEDS, k=st.integers(1, 4), size=st.integers(1, 3), chosen=FILTERS)
    def search_groups(self, seed: int, k: int, size: int, chosen: tuple[dict, Chosen]) -> None:
        reply = self.server.search(
            png(seed), k=k, filter=json.dumps(chosen[0]), group_by="n", group_size=size,
            facets="n",
        )  # fmt: skip
        assert reply.status_code == 200, reply.text
        ranked = [id for id in self._ranked(seed, chosen[1]) if self._n(id) is not None]
        groups: dict[int | None, list[str]] = {}
        for id in ranked:
            groups.setdefault(self._n(id), []).append(id)
        expected = [(n, ids[:size]) for n, ids in list(groups.items())[:k]]
        found = [
            (hit["group"], [hit["id"], *(other["id"] for other in hit["others"])])
            for hit in reply.json()["results"]
        ]
        assert found == expected
        assert reply.json()["complete"] is True
        counts = {each["value"]: each["count"] for each in reply.json()["facets"]["n"]}
        assert counts == {n: len(ids) for n, ids in groups.items()}

    @rule(id=IDS)
    def search_by_id(self, id: str) -> None:
        reply = self.server.http.post("/search", json={"id": id, "k": 8})
        assert reply.status_code == (200 if id in self.kept else 404)
        if id in self.kept:
            self._assert_results(reply.json()["results"], self.kept[id].seed, 8)

    def _assert_results(
        self, results: list[dict], seed: int, k: int, chosen: Chosen = lambda n: True
    ) -> None:
        assert [hit["id"] for hit in results] == self._ranked(seed, chosen)[:k]
        for hit in results:
            kept = self.kept[hit["id"]]
            assert hit["metadata"] == kept.metadata
            assert hit["score"] == pytest.approx(self.oracle.score(seed, kept.seed), abs=1e-5)

    def _ranked(self, seed: int, chosen: Chosen) -> list[str]:
        def rank(id: str) -> tuple[float, int]:
            return -self.oracle.score(seed, self.kept[id].seed), self.kept[id].order

        return sorted((id for id in self.kept if chosen(self._n(id))), key=rank)

    @invariant()
    def listing_is_the_dictionary_in_order(self) -> None:
        if not hasattr(self, "kept"):
            return
        images = self.server.http.get("/images").json()["images"]
        assert [i["id"] for i in images] == sorted(self.kept, key=lambda id: self.kept[id].order)
        assert {i["id"]: i["metadata"] for i in images} == {
            id: kept.metadata for id, kept in self.kept.items()
        }


@pytest.fixture(scope="module")
def oracle(random_model: Path) -> Iterator[Oracle]:
    yield Oracle(random_model)


def test_any_sequence_of_requests_gives_the_results_of_a_dictionary(
    server: Server, oracle: Oracle
) -> None:
    Machine.server, Machine.oracle = server, oracle
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    stats = server.http.get("/stats", params={"checksum": True}).json()
    assert stats["checksum"]["memory"] == stats["checksum"]["database"]
