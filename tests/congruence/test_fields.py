"""Tests that filter fields leave the images that a filter chooses, and follow all changes."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from harness import commands
from harness.images import png
from harness.server import Server
from service.database import fields as fields_module
from service.database.records import Put
from service.database.schema import filter_values
from service.database.store import Store
from service.errors import Refused
from service.filters import masks
from service.filters.grammar import parse
from service.filters.masks import Masks
from service.filters.selection import Selection
from service.filters.values import field_values
from service.index.follower import FeedFollower
from service.index.index import Index
from tests.waiting import until

VALUES: list[Any] = [
    None, True, False, 0, 1, 2.5, -3, 10**400, 2**53 + 1, "", "a", "ab", "ab\U0010ffffz",
    "b\0c", "b", "é", "\U0001f600",
    "x" * 300, "x" * 299 + "y", "2026-03-01", "2026-03-01T01:00:00+02:00",
    ["a", 2.5], [], ["a"] * 3,
    {"b": "a"}, {"b": ["é", 1]}, [{"b": 2}, {"b": "b"}], list(range(100)),
]  # fmt: skip
OPERANDS: list[Any] = [
    0, 1, 2.5, -3, True, "", "a", "ab", "b", "b\0", "é", "x" * 300, "x" * 250,
    {"date": "2026-03-01"},
]  # fmt: skip


def put(id: str, metadata: Any) -> Put:
    return Put(id, {"m": b"\1"}, f"{random.Random(id).getrandbits(256):064x}", 1, 1, 1,
               None if metadata is None else json.dumps(metadata))  # fmt: skip


def fill(store: Store) -> None:
    while store.fields.advance(field_values):
        pass


def inside(store: Store, chosen: dict[str, Any]) -> list[set[str]]:
    """Returns the ids within each bound of a filter."""
    found = []
    for bound in parse(chosen).bounds:
        candidates = store.fields.candidates(bound, 10**6)
        assert candidates is not None
        found.append({id for _, id, _ in candidates.rows})
    return found


def filters() -> list[dict[str, Any]]:
    conditions: list[Any] = [{op: v} for op in ("lt", "lte", "gt", "gte") for v in OPERANDS
                             if not isinstance(v, bool)]  # fmt: skip
    conditions += [*OPERANDS, {"any": ["a", "é"]}, {"any": [1, 2.5]}, {"all": ["a", "a"]}]
    conditions += [{"prefix": v} for v in OPERANDS if isinstance(v, str)]
    made = [{name: condition} for name in ("a", "a.b") for condition in conditions]
    return [*made, {"and": [{"a": {"gt": 0}}, {"a": {"lt": "b"}}]}, {"a": {"gt": 0, "lt": 2}}]


def test_a_field_has_every_image_that_a_filter_chooses(store: Store) -> None:
    for name in ("a", "a.b", "c"):
        store.fields.add(name)
    stored = {f"i{n}": {"a": value, "c": n} for n, value in enumerate(VALUES)} | {"none": None}
    store.images.put([put(id, metadata) for id, metadata in stored.items()])
    fill(store)
    assert all(field.complete for field in store.fields.all())
    for chosen in filters():
        expected = {i for i, m in stored.items() if parse(chosen).matches(m and json.dumps(m))}
        bounds = inside(store, chosen)
        assert bounds, chosen
        for ids in bounds:
            assert expected <= ids, chosen
            assert len(ids) < len(stored)
    assert inside(store, {"c": 3}) == [{"i3"}]
    assert parse({"or": [{"a": 1}, {"c": 2}], "not": {"a": 3}, "c": {"exists": True}}).bounds == ()


def test_fields_follow_changes_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields_module, "PAGE", 3)
    store.images.put([put(f"i{n}", {"a": n % 4}) for n in range(10)])
    store.fields.add("a")
    assert [field.complete for field in store.fields.all()] == [False]
    store.fields.advance(field_values)
    store.images.describe("i0", '{"a":9}')  # before and after the part that is filled
    store.images.describe("i9", '{"a":9}')
    fill(store)
    assert inside(store, {"a": 9}) == [{"i0", "i9"}]
    store.images.put([put(f"j{n}", {"a": 9}) for n in range(5)])
    store.images.delete("i9")
    store.images.describe("i0", None)
    fill(store)
    assert inside(store, {"a": 9}) == [{f"j{n}" for n in range(5)}]
    store.fields.add("b")  # another one leaves the first as it is
    assert inside(store, {"a": 9}) == [{f"j{n}" for n in range(5)}]
    assert store.fields.remove("a") and not store.fields.remove("a")
    store.fields.add("a")
    fill(store)
    assert [field.name for field in store.fields.all()] == ["a", "b"]
    assert inside(store, {"a": {"lte": 1}}) == [{"i1", "i4", "i5", "i8"}]


def test_fields_are_filled_again_if_changes_were_pruned(store: Store) -> None:
    store.fields.add("a")
    fill(store)
    store.images.put([put("x", {"a": 1}), put("y", {"a": 2})])
    fill(store)
    store.images.delete("y")
    while store.feed.prune(-10):
        pass
    fill(store)
    assert inside(store, {"a": {"gt": 0}}) == [{"x"}]
    with store.database.read() as connection:
        assert list(connection.scalars(sa.select(filter_values.c.seq))) == [1]


def test_there_are_few_fields(store: Store) -> None:
    for n in range(fields_module.MOST_FIELDS):
        store.fields.add(f"f{n}")
    store.fields.add("f1")
    with pytest.raises(Refused, match="remove one first"):
        store.fields.add("more")


def test_masks_use_a_field_only_if_it_helps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "LEAST_CANDIDATES", 5)
    follower = FeedFollower(store, lambda model, codes: Index(model, 2, "reference", codes), "m")
    kept = Masks(store.feed, store.fields, follower, 10**6)
    store.images.put([put(f"i{n}", {"a": n, "b": n % 2}) for n in range(20)])
    store.fields.add("a")
    fill(store)
    follower.load()
    read = []
    described = store.feed.described
    monkeypatch.setattr(store.feed, "described", lambda: read.append(1) or described())

    def seqs(chosen: dict[str, Any]) -> list[int]:
        mask = kept.find(Selection(parse(chosen)), "m")
        return mask.index.seqs(mask.mask.rows.nonzero()[0]).tolist()

    assert seqs({"a": {"lt": 4}, "b": 1}) == [2, 4] and read == []
    assert seqs({"a": {"lt": 10}, "b": 1}) == [2, 4, 6, 8, 10] and read == [1]  # too many
    assert seqs({"b": 1, "not": {"a": 1}}) == [4, 6, 8, 10, 12, 14, 16, 18, 20]
    store.images.describe("i19", '{"a":0,"b":1}')  # not yet in the field
    selection = Selection(parse({"a": 0}))
    mask = kept.find(selection, "m")
    resolved = store.feed.resolve([], mask.mark)
    assert [change.describes for change in resolved.changes] == [20] and 20 in resolved.codes


def test_fields_are_declared_over_http_and_by_commands(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    settings = {"model": random_model, "database_url": database_url}
    with Server(tmp_path, **settings) as server:
        server.index(png(0), png(1), ids='["a","b"]', metadata='[{"p":{"q":1}},{"p":{"q":2}}]')
        reply = server.http.put("/fields/p.q")
        assert reply.status_code == 200
        assert [field["name"] for field in reply.json()["fields"]] == ["p.q"]
        done = [{"name": "p.q", "complete": True}]
        until(lambda: server.http.get("/stats").json()["filter_fields"] == done)
        found = server.search(png(0), filter='{"p.q": {"gt": 1}}').json()["results"]
        assert [hit["id"] for hit in found] == ["b"]
        for name in ("a..b", "x" * 1001):
            assert server.http.put(f"/fields/{name}").status_code == 422
        assert server.http.delete("/fields/none").json()["code"] == "no-such-field"
        printed = commands.service("fields", "add", "brand", folder=tmp_path, **settings)
        assert printed.splitlines()[1] == "p.q  complete"
        assert server.http.delete("/fields/p.q").status_code == 204
        until(lambda: len(server.http.get("/fields").json()["fields"]) == 1)
        failed = commands.run("fields", "remove", "p.q", folder=tmp_path, **settings)
        assert failed.returncode == 1 and "no filter field" in failed.stderr
        commands.service("fields", "remove", "brand", folder=tmp_path, **settings)
    assert "no filter fields" in commands.service("fields", "list", folder=tmp_path, **settings)
