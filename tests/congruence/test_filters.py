"""Tests that filtered searches are exact, on every replica, also right after a change."""

import json
import threading
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from harness.images import png
from harness.server import Server
from service.database.records import Put
from service.database.store import Store
from service.errors import MaskOutdated
from service.filters.grammar import parse
from service.filters.masks import Masks
from service.filters.selection import Selection
from service.index.follower import FeedFollower
from service.index.index import Codes, Index
from service.search import exact
from service.search.exact import ExactSearch, ScanOptions

RED, CHEAP = {"colour": "red"}, {"price": {"lt": 3}}


def store_images(server: Server, colours: dict[str, Any]) -> None:
    metadata = [{"colour": colour, "price": n} for n, colour in enumerate(colours.values())]
    reply = server.index(
        *map(png, range(len(colours))), ids=json.dumps([*colours]), metadata=json.dumps(metadata)
    )
    assert reply.status_code == 200, reply.text


def found(server: Server, chosen: dict[str, Any], seed: int = 0, k: int = 1000) -> list[str]:
    reply = server.search(png(seed), k=k, filter=json.dumps(chosen))
    assert reply.status_code == 200, reply.text
    return [hit["id"] for hit in reply.json()["results"]]


def test_a_change_of_metadata_counts_at_once_on_every_replica(servers: list[Server]) -> None:
    first, second = servers
    store_images(first, {"i0": "red", "i1": "blue", "i2": "red", "i3": "red", "i4": "blue"})
    assert set(found(first, RED)) == set(found(second, RED)) == {"i0", "i2", "i3"}
    order = [hit["id"] for hit in first.search(png(0)).json()["results"]]
    assert found(first, RED) == [id for id in order if id in {"i0", "i2", "i3"}]
    assert found(second, {**RED, **CHEAP}, k=1) == [id for id in order if id in {"i0", "i2"}][:1]
    for id, colour in (("i1", "red"), ("i0", "blue"), ("i1", "green"), ("i4", "red")):
        body = {"metadata": {"colour": colour}}
        assert first.http.patch(f"/images/{id}", json=body).status_code == 200
        ids = {image["id"] for image in first.http.get("/images").json()["images"]}
        expected = {
            id for id in ids
            if first.http.get(f"/images/{id}").json()["metadata"]["colour"] == "red"
        }  # fmt: skip
        assert set(found(second, RED)) == set(found(first, RED)) == expected
        assert set(found(second, {"not": RED})) == ids - expected
    second.http.delete("/images/i2")
    assert set(found(first, RED)) == {"i3", "i4"}
    second.index(png(9), ids='["i3"]')  # another image with the same metadata
    assert set(found(first, RED)) == set(found(second, RED)) == {"i3", "i4"}


def test_every_kind_of_search_takes_a_filter(servers: list[Server]) -> None:
    server = servers[0]
    store_images(server, {"i0": "red", "i1": "blue", "i2": "red", "i3": "blue"})
    by_id = {"id": "i1", "filter": RED}
    reply = server.http.post("/search", json=by_id)
    assert {hit["id"] for hit in reply.json()["results"]} == {"i0", "i2"}  # without itself
    files = [("images", ("x", png(seed))) for seed in (0, 1)]
    reply = server.http.post("/search/batch", files=files, data={"filter": json.dumps(RED)})
    for query in reply.json()["queries"]:
        assert {hit["id"] for hit in query["results"]} == {"i0", "i2"}
    listed = server.http.get("/images", params={"filter": json.dumps(RED)}).json()
    assert [image["id"] for image in listed["images"]] == ["i0", "i2"]
    assert listed["next_cursor"] is None
    first = server.http.get("/images", params={"filter": json.dumps(RED), "limit": 1}).json()
    rest = {"filter": json.dumps(RED), "cursor": first["next_cursor"]}
    assert [i["id"] for i in server.http.get("/images", params=rest).json()["images"]] == ["i2"]


WRONG = [
    ('{"a": {"less": 1}}', "invalid-filter", "filter.a.less"),
    ("[]", "invalid-f", "filter"),
    ("{", "invalid-json", "filter"),
    ('{"a": NaN}', "invalid-filter", "filter.a"),
    ("[" * 5000, "invalid-", "filter"),
    ('{"or": ' * 50 + "1" + "}" * 50, "invalid-filter", "filter.or"),
]


def test_a_filter_that_cannot_be_used_is_refused_on_every_route(servers: list[Server]) -> None:
    server, files = servers[0], [("images", ("x", png(0)))]
    for chosen, code, place in WRONG:
        for reply in (
            server.search(png(0), filter=chosen),
            server.http.post("/search/batch", files=files, data={"filter": chosen}),
            server.http.get("/images", params={"filter": chosen}),
        ):
            body = reply.json()
            assert reply.status_code == 422 and body["code"].startswith(code), body
            assert body["detail"].startswith(place)


def test_filtered_searches_are_exact_while_metadata_change(servers: list[Server]) -> None:
    first, second = servers
    images = {f"i{n}": "red" if n % 3 else "blue" for n in range(60)}
    store_images(first, images)
    ended, errors = threading.Event(), []

    def change() -> None:
        try:
            for turn in range(60):
                id = f"i{turn * 7 % 30}"
                body = {"metadata": {"colour": "blue" if turn % 2 else "red"}}
                reply = first.http.patch(f"/images/{id}", json=body)
                if reply.status_code != 200:
                    errors.append(reply.json())
        finally:
            ended.set()

    changer = threading.Thread(target=change)
    changer.start()
    searching = True
    while searching:
        searching = not ended.is_set()
        reply = second.search(png(1), k=1000, filter=json.dumps(RED)).json()
        if any(hit["metadata"]["colour"] != "red" for hit in reply["results"]):
            errors.append(reply)
        kept = {hit["id"] for hit in reply["results"]}
        if not {f"i{n}" for n in range(30, 60) if n % 3} <= kept:
            errors.append(reply)
    changer.join()
    assert errors == []
    listed = first.http.get("/images", params={"limit": 1000}).json()["images"]
    red = {image["id"] for image in listed if image["metadata"]["colour"] == "red"}
    assert set(found(first, RED)) == set(found(second, RED)) == red


def put(id: str, code: int, colour: str) -> Put:
    return Put(id, {"m": bytes([code])}, f"{code:064x}", 1, 1, 1, json.dumps({"colour": colour}))


def test_masks_follow_changes_and_new_rows_and_are_few(store: Store) -> None:
    def new_index(model: str, codes: Codes | None) -> Index:
        return Index(model, 2, "reference", codes)

    follower = FeedFollower(store, new_index, "m")
    kept_masks = Masks(store.feed, store.fields, follower, 10**6)
    red, blue = (Selection(parse({"colour": colour})) for colour in ("red", "blue"))
    store.images.put([put(f"i{n}", n, "red" if n % 2 else "blue") for n in range(10)])
    follower.load()

    def seqs(selection: Selection) -> list[int]:
        kept = kept_masks.find(selection, "m")
        resolved = store.feed.resolve([], kept.mark)
        kept_masks.update(selection, kept, resolved)
        kept = kept_masks.find(selection, "m")
        return kept.index.seqs(kept.mask.rows.nonzero()[0]).tolist()

    assert seqs(red) == [2, 4, 6, 8, 10] and seqs(blue) == [1, 3, 5, 7, 9]
    store.images.describe("i0", '{"colour":"red"}')
    store.images.put([put("i20", 20, "red"), put("i21", 21, "blue")])
    follower.catch_up()
    assert seqs(red) == [1, 2, 4, 6, 8, 10, 12] and seqs(blue) == [3, 5, 7, 9, 13]
    follower._load()  # as when it is compacted: other rows
    assert seqs(red) == [1, 2, 4, 6, 8, 10, 12]
    store.images.delete("i20")
    follower.catch_up()
    assert seqs(blue) == [3, 5, 7, 9, 13]
    assert [seq for seq in seqs(red) if seq != 12] == [1, 2, 4, 6, 8, 10]  # 12 is removed there
    follower.history += 1  # as when the database was restored
    assert seqs(red) == [1, 2, 4, 6, 8, 10]
    small = Masks(store.feed, store.fields, follower, 1)
    for n in range(5):
        small.find(Selection(parse({"colour": f"c{n}"})), "m")
    assert len(small) == 1


def test_searches_apply_many_changes_to_their_mask(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "UPDATE_AFTER", 3)
    follower = FeedFollower(store, lambda model, codes: Index(model, 2, "reference", codes), "m")
    kept_masks = Masks(store.feed, store.fields, follower, 10**6)
    searcher = ExactSearch(store.feed, follower, kept_masks)
    selection = Selection(parse(RED))
    store.images.put([put(f"i{n}", n, "red" if n % 2 else "blue") for n in range(10)])
    follower.load()
    table = np.arange(32, dtype=np.float32).reshape(2, 16)

    def ids() -> list[str]:
        kept = kept_masks.find(selection, "m")
        options = ScanOptions("m", 3, -1.0, selection, kept=kept)
        (hits,) = searcher.submit(options, [table]).result(10)
        return [hit.id for hit in hits]

    with closing(searcher):
        assert ids() == ["i9", "i7", "i5"]
        marks = [kept_masks.find(selection, "m").mark]
        for id in ("i9", "i7", "i5", "i3"):  # all hits, and more than are asked for
            store.images.describe(id, '{"colour":"blue"}')
        assert ids() == ["i1"]
        for id in ("i0", "i2", "i4", "i6", "i8"):
            store.images.describe(id, '{"colour":"red"}')
        assert ids() == ["i8", "i6", "i4"]
        follower.catch_up()
        assert ids() == ["i8", "i6", "i4"]
        marks.append(kept_masks.find(selection, "m").mark)
    assert marks == [10, 19]


def open_follower(store: Store) -> FeedFollower:
    return FeedFollower(store, lambda model, codes: Index(model, 2, "reference", codes), "m")


def test_a_mask_loses_nothing_when_the_index_is_replaced_meanwhile(store: Store) -> None:
    follower = open_follower(store)
    kept_masks = Masks(store.feed, store.fields, follower, 10**6)
    selection = Selection(parse(RED))
    store.images.put([put(f"i{n}", n, "red") for n in range(5)])
    follower.load()
    kept = kept_masks.find(selection, "m")
    store.images.put([put("new", 9, "red")])
    follower.catch_up()
    store.images.put([put("newer", 10, "red")])
    follower._load()  # has both; the old index has only the first
    kept_masks.update(selection, kept, store.feed.resolve([], kept.mark))
    moved = kept_masks.find(selection, "m")
    assert moved.index is follower.index
    resolved = store.feed.resolve([], moved.mark)
    rows = set(moved.index.seqs(np.flatnonzero(moved.mask.rows)).tolist())
    assert rows | set(resolved.codes) == {1, 2, 3, 4, 5, 6, 7}
    assert kept_masks.total(selection, moved, resolved) == 7
    store.images.delete("i0")
    follower.catch_up()
    resolved = store.feed.resolve([], moved.mark)
    updated = kept_masks.update(selection, moved, resolved)
    assert updated.mark == 8
    assert kept_masks.total(selection, updated, store.feed.resolve([], updated.mark)) == 6


def test_masks_of_replaced_indexes_and_long_filters_do_not_stay(store: Store) -> None:
    follower = open_follower(store)
    store.images.put([put("a", 1, "red")])
    follower.load()
    kept_masks = Masks(store.feed, store.fields, follower, 10**6)
    for n in range(20):
        kept_masks.find(
            Selection(parse({"colour": {"any": [f"{n}-{m}" for m in range(900)]}})), "m"
        )
    assert len(kept_masks) < 20
    before = kept_masks.find(Selection(parse(RED)), "m")
    follower._load()
    kept_masks.find(Selection(parse({"colour": "blue"})), "m")
    assert all(kept.index is not before.index for kept in kept_masks._kept.values())


def test_a_search_with_an_old_mask_asks_for_a_new_one(store: Store) -> None:
    follower = open_follower(store)
    store.images.put([put("a", 1, "red")])
    follower.load()
    kept_masks = Masks(store.feed, store.fields, follower, 10**6)
    selection = Selection(parse(RED))
    options = ScanOptions("m", 3, -1.0, selection, kept=kept_masks.find(selection, "m"))
    table = np.zeros((2, 16), dtype=np.float32)
    with closing(ExactSearch(store.feed, follower, kept_masks)) as searcher:
        assert len(searcher.submit(options, [table]).result(10)[0]) == 1
        store.images.put([put("b", 1, "red")])
        while store.feed.prune(-10):
            pass
        with pytest.raises(MaskOutdated):
            searcher.submit(options, [table]).result(10)
        assert len(kept_masks) == 0
        follower.history += 1
        with pytest.raises(MaskOutdated):
            searcher.submit(options, [table]).result(10)
