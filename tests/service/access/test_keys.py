import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.access import keys
from service.access.keys import KeyRing
from service.database.migrate import migrate
from service.database.store import Store
from service.errors import InvalidRequest, Refused


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/a.db")
    migrate(opened.database)
    yield opened
    opened.close()


def test_a_secret_is_not_kept_and_finds_its_key(store: Store) -> None:
    key, secret = keys.create(store.keys, "shop", ["search"], configured=True)
    assert secret.startswith("gpq_") and len(secret) > 40
    assert secret not in str(store.keys.all())
    ring = KeyRing(store.keys, [])
    assert not ring.required and ring.find(secret, "a") is None
    ring.refresh()
    caller = ring.find(secret, "a")
    assert caller is not None and caller.number == key.number
    assert caller.may(["search"]) and not caller.may(["index"]) and not caller.may([])
    assert ring.required
    assert ring.find(secret + "x", "a") is None and ring.find("", "a") is None


def test_keys_of_the_settings_may_do_everything(store: Store) -> None:
    ring = KeyRing(store.keys, ["one", "two"])
    caller = ring.find("two", "a")
    assert caller is not None and caller.may([])
    assert caller.name == "GPQ_API_KEYS[1]"


def test_revoked_and_expired_keys_are_refused_and_still_protect(store: Store) -> None:
    revoked, first = keys.create(store.keys, "a", ["admin"])
    _, second = keys.create(store.keys, "b", ["admin"], expires=time.time() + 0.3)
    ring = KeyRing(store.keys, [])
    ring.refresh()
    assert ring.find(first, "a") and ring.find(second, "a")
    store.keys.revoke(revoked.number)
    time.sleep(0.4)
    ring.refresh()
    assert ring.find(first, "a") is None and ring.find(second, "a") is None
    assert ring.required
    assert store.keys.revoke(99) is None


def test_other_processes_follow_and_the_last_use_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "REFRESH_SECONDS", 0.05)
    ring = KeyRing(store.keys, [])
    ring.start()
    try:
        _, secret = keys.create(store.keys, "a", ["admin"])
        deadline = time.monotonic() + 5
        while ring.find(secret, "a") is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while store.keys.all()[0].used is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        ring.stop()
    assert abs((store.keys.all()[0].used or 0) - time.time()) < 5


@pytest.mark.parametrize(
    ("scopes", "prefix", "expires"),
    [
        ([], "", None),
        (["admin"], "", 10.0**11),
        (["root"], "", None),
        (["search"], "a b", None),
        (["index", "admin"], "a-", None),
        (["index"], "a/b", None),
        (["search"], "", 1.0),
    ],
)
def test_keys_that_make_no_sense_are_refused(
    store: Store, scopes: list, prefix: str, expires: float | None
) -> None:
    with pytest.raises(InvalidRequest):
        keys.create(store.keys, "a", scopes, prefix, expires)
    for name in ("", "x" * 65, "a\n"):
        with pytest.raises(InvalidRequest):
            keys.create(store.keys, name, ["search"])


def test_a_key_that_manages_keys_comes_first_and_stays(store: Store) -> None:
    with pytest.raises(Refused, match="scope admin first"):
        keys.create(store.keys, "shop", ["search"])
    first, _ = keys.create(store.keys, "a", ["admin"])
    keys.create(store.keys, "shop", ["search"])
    with pytest.raises(Refused, match="last key"):
        store.keys.revoke(first.number, keep_admin=True)
    second, _ = keys.create(store.keys, "b", ["admin"])
    assert store.keys.revoke(first.number, keep_admin=True)
    with pytest.raises(Refused, match="last key"):
        store.keys.revoke(second.number, keep_admin=True)
