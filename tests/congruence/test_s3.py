"""Tests of originals in a store that speaks S3."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import commands
from harness.images import png, tree
from harness.server import Server
from service.originals.originals import open_originals
from service.runtime import RETRY_SECONDS
from tests.s3 import S3

STORE = "s3://images/of/the/shop"


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with S3(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("images")
        yield server


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_originals_in_s3_are_kept_shown_and_imported(
    random_model: Path, database_url: str, tmp_path: Path, s3: S3
) -> None:
    settings = {"model": random_model, "database_url": database_url, "image_store": STORE}
    tree(tmp_path / "in", *(f"{n}.png" for n in range(20)))
    with Server(tmp_path, **settings) as server:
        assert server.index(png(3), ids='["a"]').status_code == 200
        assert server.index(png(3), ids='["a"]').json()["items"][0]["status"] == "unchanged"
        assert server.http.get("/images/a/content").content == png(3)
        assert server.http.get("/images/a/thumbnail").status_code == 200
        by_id = server.http.post("/search", json={"id": "a", "k": 1}).json()
        assert by_id["query"] == "original" and by_id["results"][0]["id"] == "a"
        commands.service("import", str(tmp_path / "in"), folder=tmp_path, **settings)
        assert server.http.get("/images/7.png/content").content == png(7)
        # During an outage of the store, requests that need it get 503.
        s3.__exit__()
        refused = server.index(png(50))
        assert refused.json()["status"] == 503, refused.text
        assert server.http.get("/images/a/content").status_code == 503
        assert server.search(png(3)).status_code == 200
        with S3(tmp_path) as again:
            assert again.port != s3.port  # an empty store that the service does not use
        assert server.http.get("/stats").json()["images"] == 21


def test_a_service_waits_for_a_store_that_does_not_answer_yet(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3(tmp_path)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    server = Server(tmp_path, model=random_model, image_store=STORE)
    server.start()
    server.wait_until_not_ready("the image store does not answer")
    time.sleep(2 * RETRY_SECONDS)
    with store:
        store.make_bucket("images")
        server.wait_until_ready()
        assert len(server.http.get("/stats").json()["feed"]["replicas"]) == 1
        assert server.printed().count("alembic.runtime.migration: Context") == 1
        assert server.index(png(1)).status_code == 200
        assert server.stop() == 0


@pytest.mark.parametrize("location", [STORE, "memory://swept"])
def test_a_sweep_first_sets_originals_aside_and_restores_used_ones(
    s3: S3, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, unused, restored = ("0a" * 32, "0b" * 32, "0c" * 32)
    originals = open_originals(location)
    assert originals.claim("database", 1)
    for key in (kept, unused, restored):
        originals.put({key: key.encode()})
    assert open_originals(location).claim("database", 2)
    assert originals.sweep(lambda keys: set()) == 0  # all are young
    monkeypatch.setattr("service.originals.sweeps.GRACE_SECONDS", -1)
    assert originals.sweep(lambda keys: {kept} & set(keys)) == 0
    assert originals.get(unused) == unused.encode()  # set aside, and still readable
    originals.put({restored: restored.encode()})  # stored again meanwhile
    in_use = {kept, restored}
    assert originals.sweep(lambda keys: in_use & set(keys)) == 1
    assert originals.get(unused) is None
    assert originals.get(restored) == restored.encode()
    assert originals.get(kept) == kept.encode()
    originals.sweep(lambda keys: {kept} & set(keys))
    originals.sweep(lambda keys: in_use & set(keys))  # an image uses it again without a put
    assert originals.get(restored) == restored.encode()
