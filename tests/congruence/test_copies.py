"""Tests of searches for copies, on both databases and on two services."""

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image, ImageEnhance

from harness import ROOT
from harness.images import encoded, png
from harness.server import Server
from service.copies.copies import Copies
from service.copies.index import CopyIndex
from service.database import schema
from service.database.copies import UNREADABLE
from service.database.records import CopyHash, Put
from service.database.store import Store

PHOTOGRAPHS = sorted((ROOT / "examples").glob("*/*.jpg"))[::25]
SECONDS = 30


def photograph(n: int) -> Image.Image:
    return Image.open(PHOTOGRAPHS[n]).convert("RGB")


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    return encoded(image, "JPEG", quality=quality)


def small(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "compressed": lambda image: jpeg(image, 20),
    "small": lambda image: jpeg(small(image)),
    "dark": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(0.7)),
    "mirrored": lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 60),
    "turned": lambda image: jpeg(small(image.rotate(-90, expand=True))),
}


@pytest.fixture
def servers(random_model: Path, database_url: str, tmp_path: Path) -> Iterator[list[Server]]:
    """Two services over one database that keep hashes."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(service(tmp_path / name, random_model, database_url, copies=True))
            for name in ("a", "b")
        ]


def service(folder: Path, model: Path, url: str, **settings: Any) -> Server:
    folder.mkdir()
    originals = folder.parent / "originals"
    return Server(folder, model=model, database_url=url, image_store=originals, **settings)


def copies_of(server: Server, image: bytes, **fields: Any) -> list[dict[str, Any]]:
    reply = server.http.post("/search/copies", files={"image": image}, data=fields)
    assert reply.status_code == 200, reply.text
    return reply.json()["copies"]


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def run_job(server: Server, **body: Any) -> dict[str, Any]:
    reply = server.http.post("/jobs/duplicates", json=body)
    assert reply.status_code == 202, reply.text
    place = reply.headers["location"]
    wait_until(lambda: server.http.get(place).json()["state"] not in ("waiting", "running"))
    job = server.http.get(place).json()
    assert job["state"] == "done", job
    return job


def test_copies_are_found_on_every_process_right_after_the_upload(servers: list[Server]) -> None:
    first, second = servers
    for n in range(len(PHOTOGRAPHS)):
        first.index(PHOTOGRAPHS[n].read_bytes(), ids=json.dumps([f"p{n}"]), metadata='[{"n": 1}]')
        found = copies_of(second, PHOTOGRAPHS[n].read_bytes())
        assert [hit["id"] for hit in found] == [f"p{n}"]
        assert found[0] == {
            "id": f"p{n}", "distance": 0, "mirrored": False, "turned": 0, "metadata": {"n": 1}
        }  # fmt: skip
    for n in range(0, len(PHOTOGRAPHS), 3):
        for name, change in CHANGES.items():
            (found,) = copies_of(first, change(photograph(n)))
            assert found["id"] == f"p{n}", name
            assert found["mirrored"] is (name == "mirrored")
            # The stored one is turned back beside the upload.
            assert found["turned"] == (270 if name == "turned" else 0)
    assert copies_of(first, png(5)) == []
    stats = first.http.get("/stats").json()["copies"]
    assert stats == {"hashed": len(PHOTOGRAPHS), "plain": 0, "unreadable": 0, "waiting": 0}


def test_copies_follow_replacements_and_deletes(servers: list[Server]) -> None:
    first, second = servers
    original = PHOTOGRAPHS[0].read_bytes()
    first.index(original, jpeg(small(photograph(0))), ids='["one", "two"]')
    assert [hit["id"] for hit in copies_of(second, original)] == ["one", "two"]
    assert [hit["id"] for hit in copies_of(second, original, k=1)] == ["one"]
    by_id = second.http.post("/search/copies", json={"id": "one"}).json()["copies"]
    assert [hit["id"] for hit in by_id] == ["two"]
    first.index(PHOTOGRAPHS[1].read_bytes(), ids='["one"]')
    assert [hit["id"] for hit in copies_of(second, original)] == ["two"]
    assert [hit["id"] for hit in copies_of(second, PHOTOGRAPHS[1].read_bytes())] == ["one"]
    second.http.delete("/images/two")
    assert copies_of(first, original) == []
    assert copies_of(second, original) == []
    assert first.http.post("/search/copies", json={"id": "two"}).status_code == 404


def test_uploads_that_are_copies_are_reported_or_skipped(servers: list[Server]) -> None:
    first, second = servers
    first.index(jpeg(photograph(0)), ids='["stored"]')
    images = [CHANGES["mirrored"](photograph(0)), jpeg(photograph(1)), jpeg(photograph(1), 30)]
    files = [("images", (f"{n}.jpg", data)) for n, data in enumerate(images)]
    ids = {"ids": '["a", "b", "c"]'}

    def post(duplicates: str, **query: Any) -> list[dict[str, Any]]:
        query = {"duplicates": duplicates, **query}
        reply = second.http.post("/index", params=query, files=files, data=ids)
        assert reply.status_code == 200, reply.text
        assert reply.json()["errors"] is False
        return reply.json()["items"]

    skipped = post("skip")
    assert [item["status"] for item in skipped] == ["skipped", "created", "skipped"]
    assert [[copy["id"] for copy in item["copies"]] for item in skipped] == [["stored"], [], ["b"]]
    assert skipped[0]["copies"][0]["mirrored"] is True
    assert {image["id"] for image in first.http.get("/images").json()["images"]} == {"stored", "b"}
    reported = post("report")
    assert [item["status"] for item in reported] == ["created", "unchanged", "created"]
    assert [[copy["id"] for copy in item["copies"]] for item in reported] == [["stored"], [], ["b"]]
    strict = post("report", distance=0)
    assert [item["copies"] for item in strict] == [[], [], []]
    plain = second.index(jpeg(photograph(0)), ids='["d"]').json()["items"][0]
    assert "copies" not in plain


def test_hashes_that_are_missing_are_computed_later(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    with service(tmp_path / "without", random_model, database_url) as server:
        images = [path.read_bytes() for path in PHOTOGRAPHS]
        plain = encoded(Image.new("RGB", (50, 50), "white"))
        ids = [*(f"p{n}" for n in range(len(images))), "plain"]
        server.index(*images, plain, ids=json.dumps(ids))
        for method, path in (("POST", "/search/copies"), ("POST", "/jobs/duplicates")):
            reply = server.http.request(method, path, files={"image": plain})
            assert (reply.status_code, reply.json()["code"]) == (409, "copies-off")
        reply = server.http.post("/index?duplicates=skip", files={"images": plain})
        assert (reply.status_code, reply.json()["code"]) == (409, "copies-off")
        assert "copies" not in server.http.get("/stats").json()
        lost = server.http.get("/images/p0").json()
    for path in (tmp_path / "originals").rglob("*"):
        if path.is_file() and path.stat().st_size == lost["bytes"] and path.name not in ("gpq",):
            path.unlink()
    with service(tmp_path / "with", random_model, database_url, copies=True) as server:
        wait_until(lambda: server.http.get("/stats").json()["copies"]["waiting"] == 0)
        counts = server.http.get("/stats").json()["copies"]
        hashed = {"hashed": len(images) - 1, "plain": 1, "unreadable": 1, "waiting": 0}
        assert counts == hashed
        assert [hit["id"] for hit in copies_of(server, images[1])] == ["p1"]
        reply = server.http.post("/search/copies", files={"image": plain}).json()
        assert (reply["copies"], reply["plain"], reply["quality"]) == ([], True, 0)
        reply = server.http.post("/search/copies", json={"id": "p0"})
        assert (reply.status_code, reply.json()["code"]) == (404, "no-original")


def test_groups_of_copies_are_listed_page_by_page(servers: list[Server]) -> None:
    first, second = servers
    assert second.http.get("/duplicates").json() == {"groups": [], "job": None, "next_cursor": None}
    expected = []
    for n in range(4):
        names = [f"g{n}", f"g{n}-small", f"g{n}-mirrored"][: 3 if n % 2 else 1]
        images = [
            jpeg(photograph(n)),
            CHANGES["small"](photograph(n)),
            CHANGES["mirrored"](photograph(n)),
        ]
        first.index(*images[: len(names)], ids=json.dumps(names))
        if len(names) > 1:
            expected.append(names)
    first.index(jpeg(photograph(0)), ids='["other-0"]')
    expected.insert(0, ["g0", "other-0"])
    job = run_job(second)
    assert "3 groups of 8 images" in job["detail"]
    listed = first.http.get("/duplicates").json()
    assert [[image["id"] for image in group["images"]] for group in listed["groups"]] == expected
    assert [group["size"] for group in listed["groups"]] == [2, 3, 3]
    members = listed["groups"][1]["images"]
    assert [image["mirrored"] for image in members] == [False, False, True]
    assert members[0]["distance"] == 0 < members[2]["distance"] <= 31
    pages, cursor = [], "0"
    while cursor is not None:
        page = second.http.get("/duplicates", params={"limit": 1, "cursor": cursor}).json()
        pages += page["groups"]
        cursor = page["next_cursor"]
    assert pages == listed["groups"]
    second.http.delete("/images/g1-small")
    first.http.delete("/images/other-0")
    sizes = [group["size"] for group in first.http.get("/duplicates").json()["groups"]]
    assert sizes == [2, 3]
    job = run_job(first, distance=0)
    assert "0 groups" in job["detail"]
    assert first.http.get("/duplicates").json()["groups"] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"id": "x", "k": 0}, "invalid-field"),
        ({"id": "x", "distance": 65}, "invalid-field"),
        ({"id": "x", "distance": -1}, "invalid-field"),
        ({"id": "x", "filter": {}}, "invalid-field"),
        ({"id": "/"}, "invalid-field"),
        ([], "invalid-field"),
    ],
)
def test_fields_that_cannot_be_used_are_refused(
    servers: list[Server], body: Any, code: str
) -> None:
    reply = servers[0].http.post("/search/copies", json=body)
    assert (reply.status_code, reply.json()["code"]) == (422, code)


def test_keys_with_a_prefix_see_their_own_copies(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    with service(tmp_path / "a", random_model, database_url, copies=True, api_keys="top") as server:
        server.http.headers["authorization"] = "Bearer top"
        server.index(
            jpeg(photograph(0)), jpeg(photograph(0), 50), jpeg(photograph(0), 30),
            ids='["ours-1", "ours-2", "theirs-1"]',
        )  # fmt: skip
        run_job(server)
        key = {"name": "shop", "scopes": ["search", "index"], "prefix": "ours-"}
        secret = server.http.post("/keys", json=key).json()["key"]
        server.http.headers["authorization"] = f"Bearer {secret}"
        found = copies_of(server, jpeg(photograph(0)))
        assert [hit["id"] for hit in found] == ["ours-1", "ours-2"]
        (group,) = server.http.get("/duplicates").json()["groups"]
        assert [image["id"] for image in group["images"]] == ["ours-1", "ours-2"]
        assert server.http.post("/search/copies", json={"id": "theirs-1"}).status_code == 403
        reply = server.http.post(
            "/index", params={"duplicates": "report"}, files={"images": jpeg(photograph(0), 40)},
            data={"ids": '["ours-3"]'},
        )  # fmt: skip
        ids = [copy["id"] for copy in reply.json()["items"][0]["copies"]]
        assert ids == ["ours-1", "ours-2"] or ids == ["ours-2", "ours-1"]
        assert server.http.post("/jobs/duplicates").status_code == 403


def test_an_import_keeps_hashes(random_model: Path, database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.jpg").write_bytes(jpeg(photograph(n)))
    with service(
        tmp_path / "a", random_model, database_url, copies=True, import_folder=folder
    ) as server:
        place = server.http.post("/jobs/import", json={"source": "."}).headers["location"]
        wait_until(lambda: server.http.get(place).json()["state"] == "done")
        assert server.http.get("/stats").json()["copies"]["hashed"] == 3
        assert [hit["id"] for hit in copies_of(server, jpeg(small(photograph(1))))] == ["1.jpg"]


def test_a_turned_photograph_of_a_camera_is_compared_upright(servers: list[Server]) -> None:
    image = photograph(2)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    stored = io.BytesIO()
    image.rotate(90, expand=True).save(stored, "JPEG", exif=exif, quality=95)
    servers[0].index(stored.getvalue(), ids='["camera"]')
    (found,) = copies_of(servers[1], jpeg(image))
    assert (found["id"], found["turned"], found["mirrored"]) == ("camera", 0, False)


def test_repeats_of_a_copy_are_skipped_too_and_stored_images_are_not(
    servers: list[Server],
) -> None:
    server = servers[0]
    server.index(jpeg(photograph(0)), jpeg(photograph(0), 80), ids='["one", "two"]')
    copy = jpeg(photograph(0), 40)
    files = [("images", ("a", copy)), ("images", ("b", copy))]
    items = server.http.post("/index?duplicates=skip", files=files).json()["items"]
    assert [item["status"] for item in items] == ["skipped", "skipped"]
    assert items[0]["copies"] == items[1]["copies"] != []
    fields = {"ids": '["two"]', "metadata": '[{"n": 5}]'}
    again = server.http.post(
        "/index?duplicates=skip", files={"images": jpeg(photograph(0), 80)}, data=fields
    )
    assert again.json()["items"][0]["status"] == "replaced"
    assert server.http.get("/images/two").json()["metadata"] == {"n": 5}


def test_a_group_is_shown_beside_its_first_image_that_is_left(servers: list[Server]) -> None:
    server = servers[0]
    image = photograph(3)
    turned = image.rotate(-90, expand=True)
    server.index(jpeg(image), jpeg(turned), jpeg(turned, 50), ids='["a", "b", "c"]')
    run_job(server)
    server.http.delete("/images/a")
    (group,) = server.http.get("/duplicates").json()["groups"]
    found = [(each["id"], each["turned"]) for each in group["images"]]
    assert found == [("b", 0), ("c", 0)]
    assert group["images"][0]["distance"] == 0


def test_a_process_follows_a_database_that_lost_hashes(store: Store) -> None:
    hashes = [CopyHash(bytes([n]) * 32, 100) for n in range(6)]
    puts = [Put(f"i{n}", {"m": b"code"}, f"{n:064x}", 1, 1, 1, None) for n in range(len(hashes))]
    seqs = [outcome.seq for outcome in store.images.put(puts)]
    follower: Any = SimpleNamespace(history=0)
    index = CopyIndex(store.copies, follower, "reference")
    copies = Copies(store.copies, index)

    def fill(numbers: list[int]) -> None:
        store.copies.fill({seqs[n]: hashes[n] for n in numbers})

    def found(n: int) -> list[str]:
        return [copy.id for copy in copies.find(hashes[n], 0, 9).copies]

    fill([0, 1, 2, 3])
    assert [found(n) for n in range(6)] == [["i0"], ["i1"], ["i2"], ["i3"], [], []]
    with store.database.transaction() as connection:  # as a restored database is
        connection.execute(sa.delete(schema.copy_hashes).where(schema.copy_hashes.c.number > 1))
        reset = "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'copy_hashes'"
        if store.database.is_postgres:
            reset = "SELECT setval('copy_hashes_number_seq', 1)"
        connection.execute(sa.text(reset))
    for n in (5, 3, 2, 1, 4):
        fill([n])
    assert [found(n) for n in range(6)] == [[f"i{n}"] for n in range(6)]
    store.images.delete("i4")
    assert found(4) == []
    assert found(3) == ["i3"]
    store.copies.sweep()
    assert index.restarts == 1


def test_an_image_that_is_stored_again_gets_its_missing_hash(store: Store) -> None:
    put = Put("one", {"m": b"code"}, "0" * 64, 1, 1, 1, None)
    (outcome,) = store.images.put([put])
    assert store.copies.counts().waiting == 1
    store.copies.fill({outcome.seq: UNREADABLE})
    assert store.copies.counts().unreadable == 1
    store.images.put([replace(put, copy_hash=CopyHash(b"h" * 32, 90))])
    assert store.copies.counts().hashed == 1
    assert store.copies.of_image("one") == CopyHash(b"h" * 32, 90)
    assert store.copies.missing(0, 10) == []
