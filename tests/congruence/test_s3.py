"""Originals in a store that speaks S3."""

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

PLACE = "s3://pictures/of/the/shop"


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with S3(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("pictures")
        yield server


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_pictures_in_s3_are_kept_shown_and_imported(
    random_model: Path, database_url: str, tmp_path: Path, s3: S3
) -> None:
    places = {"model": random_model, "database_url": database_url, "image_store": PLACE}
    tree(tmp_path / "in", *(f"{n}.png" for n in range(20)))
    with Server(tmp_path, **places) as server:
        assert server.index(png(3), ids='["a"]').status_code == 200
        assert server.index(png(3), ids='["a"]').json()["items"][0]["status"] == "unchanged"
        assert server.http.get("/images/a/content").content == png(3)
        assert server.http.get("/images/a/thumbnail").status_code == 200
        by_id = server.http.post("/search", json={"id": "a", "k": 1}).json()
        assert by_id["query"] == "original" and by_id["results"][0]["id"] == "a"
        commands.service("import", str(tmp_path / "in"), folder=tmp_path, **places)
        assert server.http.get("/images/7.png/content").content == png(7)
        # An outage is told, and over once the store answers again.
        s3.__exit__()
        gone = server.index(png(50))
        assert gone.json()["status"] == 503, gone.text
        assert server.http.get("/images/a/content").status_code == 503
        assert server.search(png(3)).status_code == 200
        with S3(tmp_path) as again:
            assert again.port != s3.port  # another, empty one: nothing of ours listens there
        assert server.http.get("/stats").json()["images"] == 21


def test_a_service_waits_for_a_store_that_does_not_answer_yet(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3(tmp_path)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    server = Server(tmp_path, model=random_model, image_store=PLACE)
    server.start()
    server.wait_until_not_ready("the image store does not answer")
    time.sleep(2 * RETRY_SECONDS)
    with store:
        store.make_bucket("pictures")
        server.wait_until_ready()
        assert len(server.http.get("/stats").json()["feed"]["replicas"]) == 1
        assert server.printed().count("alembic.runtime.migration: Context") == 1
        assert server.index(png(1)).status_code == 200
        assert server.stop() == 0


@pytest.mark.parametrize("place", [PLACE, "memory://swept"])
def test_a_sweep_sets_aside_first_and_gives_back(
    s3: S3, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, unused, back = ("0a" * 32, "0b" * 32, "0c" * 32)
    originals = open_originals(place)
    assert originals.claim("database", 1)
    for key in (kept, unused, back):
        originals.put({key: key.encode()})
    assert open_originals(place).claim("database", 2)
    assert originals.sweep(lambda keys: set()) == 0  # all are young
    monkeypatch.setattr("service.originals.sweeps.GRACE_SECONDS", -1)
    assert originals.sweep(lambda keys: {kept} & set(keys)) == 0
    assert originals.get(unused) == unused.encode()  # set aside, and still there
    originals.put({back: back.encode()})  # stored again meanwhile
    in_use = {kept, back}
    assert originals.sweep(lambda keys: in_use & set(keys)) == 1
    assert originals.get(unused) is None
    assert originals.get(back) == back.encode() and originals.get(kept) == kept.encode()
    originals.sweep(lambda keys: {kept} & set(keys))
    originals.sweep(lambda keys: in_use & set(keys))  # its picture came back without a put
    assert originals.get(back) == back.encode()
