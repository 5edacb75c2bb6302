import pytest
import sqlalchemy as sa

from service.database import models, schema
from service.database.records import Put
from service.database.store import Store
from service.errors import ModelChanged, ModelError
from tests.congruence.conftest import FILES


def put(store: Store, id: str, content: int, *models: str) -> str:
    codes = {model: bytes([content]) for model in models}
    return store.images.put([Put(id, codes, f"{content:064x}", 4, 3, 100, None)])[0].status


def codes(store: Store, model: str) -> list[tuple[int, bytes]]:
    with store.feed.snapshot(model) as taken:
        return [tuple(pair) for part in taken.parts for pair in part]


def number(store: Store, model: str) -> int:
    return store.models.get(model).number


def test_an_added_model_is_complete_once_its_codes_are_filled(store: Store) -> None:
    for n, id in enumerate("abcd", start=1):
        put(store, id, n, "m")
    store.models.add("n", FILES)
    with pytest.raises(ModelError, match="n was added already"):
        store.models.add("n", FILES)
    with pytest.raises(ModelChanged, match=r"of models \['m', 'n'\], not of \['m'\]"):
        put(store, "e", 5, "m")
    assert put(store, "e", 5, "m", "n") == "created"
    missing = store.models.missing(number(store, "n"), 0, 3)
    assert [(row.seq, row.id) for row in missing] == [(1, "a"), (2, "b"), (3, "c")]
    assert store.models.missing(number(store, "n"), 3, 3)[0].id == "d"
    assert store.models.count_missing(number(store, "n")) == 4
    assert not store.models.complete("n")
    # Codes of images that were replaced or deleted meanwhile are not stored.
    assert put(store, "a", 6, "m", "n") == "replaced"
    store.images.delete("b")
    store.models.fill("n", {1: b"\x91", 2: b"\x92", 3: b"\x93"})
    assert codes(store, "n") == [(3, b"\x93"), (5, b"\x05"), (6, b"\x06")]
    # A put of the same bytes keeps the seq, and adds the missing code.
    assert put(store, "d", 4, "m", "n") == "unchanged"
    assert codes(store, "n") == [(3, b"\x93"), (4, b"\x04"), (5, b"\x05"), (6, b"\x06")]
    assert store.models.complete("n")
    assert [(row.id, row.complete) for row in store.models.all()] == [("m", True), ("n", True)]
    with pytest.raises(ModelError, match="no model x"):
        store.models.fill("x", {3: b"\x01"})


def test_the_active_model_can_change_and_change_back(store: Store) -> None:
    put(store, "a", 1, "m")
    store.models.add("n", FILES)
    with pytest.raises(ModelError, match="1 images have no code of model n yet: re-index"):
        store.models.activate("n")
    assert store.models.previous() is None
    store.models.fill("n", {1: b"\x02"})
    assert store.models.complete("n")
    assert store.models.activate("n") == "m"
    assert store.models.activate("n") == "n"
    assert (store.feed.resolve([], 0).model, store.models.previous()) == ("n", "m")
    assert store.models.activate("m") == "n"
    assert store.models.previous() == "n"
    with pytest.raises(ModelError, match="no model x"):
        store.models.activate("x")


def test_deleting_a_model_deletes_its_codes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "SWEPT_CODES", 3)
    store.models.add("n", FILES)
    assert store.models.get("n").complete  # because no images exist
    for n in range(8):
        put(store, f"p{n}", n, "m", "n")
    store.models.activate("n")
    with pytest.raises(ModelError, match="n is active"):
        store.models.delete("n")
    store.models.delete("m")
    assert (codes(store, "m"), len(codes(store, "n"))) == ([], 8)
    assert (store.models.files("m"), store.models.files("n")) == ({}, FILES)
    assert store.models.previous() is None
    assert store.models.ever_known("m") and store.models.ever_known("n")
    assert not store.models.ever_known("x")
    count = sa.select(sa.func.count()).select_from(schema.codes)
    for left in (16, 8):
        with store.database.read() as connection:
            assert connection.scalar(count) == left
        store.models.sweep()
    # A model added again gets another number, so that leftover codes cannot belong to it.
    store.models.add("m", FILES)
    assert number(store, "m") == 3
    assert store.models.count_missing(3) == 8


def test_codes_of_a_deleted_model_that_a_crash_left_over_are_swept(store: Store) -> None:
    put(store, "a", 1, "m")
    with store.database.transaction() as connection:
        connection.execute(sa.insert(schema.codes).values(model=7, seq=1, code=b"\x01"))
    store.models.sweep()
    with store.database.read() as connection:
        assert connection.scalars(sa.select(schema.codes.c.model)).all() == [1]
