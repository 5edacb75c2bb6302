"""Tests of storing, searching, replacing and deleting images over HTTP, and of restarts."""

import json
import threading
from pathlib import Path

import pytest

from harness.images import encoded, noise, png, quarters
from harness.models import SHIPPED, make_artifact
from harness.server import Server


def ids(reply) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [hit["id"] for hit in reply.json()["results"]]


def test_default_ids_derive_from_the_bytes_and_posting_twice_changes_nothing(
    server: Server,
) -> None:
    first = server.index(png(1), png(2)).json()
    assert first["errors"] is False
    assert [item["status"] for item in first["items"]] == ["created", "created"]
    assert all(len(item["id"]) == 32 for item in first["items"])
    again = server.index(png(1), png(2)).json()
    assert [item["status"] for item in again["items"]] == ["unchanged", "unchanged"]
    assert [i["id"] for i in again["items"]] == [i["id"] for i in first["items"]]


def test_an_image_is_found_right_after_the_reply(server: Server) -> None:
    for seed in range(10, 20):
        server.index(png(seed), ids=json.dumps([f"found-{seed}"]))
        reply = server.search(png(seed), k=1000)
        assert f"found-{seed}" in ids(reply)
        body = reply.json()
        scores = [hit["score"] for hit in body["results"]]
        assert scores == sorted(scores, reverse=True)
        assert -1 <= scores[-1] <= scores[0] <= 1
        assert body["query"] == "image"
        assert body["took_ms"] > 0


def test_metadata_is_kept_replaced_and_cleared(server: Server) -> None:
    def put(seed: int, *metadata: object) -> str:
        fields = {"metadata": json.dumps(list(metadata))} if metadata else {}
        return server.index(png(seed), ids='["meta"]', **fields).json()["items"][0]["status"]

    def stored() -> dict:
        return server.http.get("/images/meta").json()

    assert put(30, {"colour": "röd", "n": [1, 2.5]}) == "created"
    assert stored()["metadata"] == {"colour": "röd", "n": [1, 2.5]}
    seq = stored()["seq"]
    assert put(30) == "unchanged"
    assert put(30, {"colour": "blue"}) == "replaced"
    assert stored()["metadata"] == {"colour": "blue"}
    assert stored()["seq"] == seq
    assert put(31) == "replaced"
    assert stored()["metadata"] == {"colour": "blue"}
    assert stored()["seq"] > seq
    assert put(31, None) == "replaced"
    assert stored()["metadata"] is None
    assert {"id", "seq", "created", "width", "height", "bytes", "metadata", "tags"} == set(stored())
    assert (stored()["width"], stored()["height"]) == (40, 32)
    hits = {h["id"]: h for h in server.search(png(31), k=1000).json()["results"]}
    assert hits["meta"]["metadata"] is None


def test_a_replaced_image_is_found_by_its_new_bytes_only(server: Server) -> None:
    server.index(png(40), ids='["swap"]')
    before = server.search(png(40), k=1000, min_score=-1).json()["results"]
    server.index(png(41), ids='["swap"]')
    after = server.search(png(41), k=1000).json()["results"]
    assert [h["id"] for h in after].count("swap") == 1
    assert [h["id"] for h in before].count("swap") == 1
    old = next(h["score"] for h in before if h["id"] == "swap")
    hits = server.search(png(40), k=1000).json()["results"]
    assert next(h["score"] for h in hits if h["id"] == "swap") != old


def test_a_deleted_image_is_gone_at_once(server: Server) -> None:
    server.index(png(50), ids='["gone"]')
    assert server.http.delete("/images/gone").status_code == 204
    assert "gone" not in ids(server.search(png(50), k=1000))
    assert server.http.get("/images/gone").status_code == 404
    assert server.http.delete("/images/gone").status_code == 404
    assert server.http.post("/search", json={"id": "gone"}).status_code == 404
    assert server.index(png(50), ids='["gone"]').json()["items"][0]["status"] == "created"
    assert "gone" in ids(server.search(png(50), k=1000))


def test_a_search_by_stored_id_uses_the_original(server: Server) -> None:
    server.index(png(60), ids='["query"]')
    by_id = server.http.post("/search", json={"id": "query", "k": 5})
    assert by_id.json()["query"] == "original"
    assert by_id.json()["results"] == server.search(png(60), k=5).json()["results"]


def test_a_stored_image_is_in_its_own_results_among_ties(server: Server) -> None:
    for n in range(12):
        server.index(png(65), ids=json.dumps([f"twin-{n}"]))
    found = ids(server.http.post("/search", json={"id": "twin-11", "k": 10}))
    assert len(found) == 10
    assert found[-1] == "twin-11"
    assert ids(server.http.post("/search", json={"id": "twin-11", "k": 1})) == ["twin-11"]


def test_a_stored_image_that_no_longer_decodes_is_searched_by_code(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model) as first:
        first.index(encoded(noise(1, (50, 50))), ids='["large"]')
    with Server(tmp_path, model=random_model, max_pixels=1100) as second:
        reply = second.http.post("/search", json={"id": "large"}).json()
        assert reply["query"] == "code"
        assert [hit["id"] for hit in reply["results"]] == ["large"]


def test_k_and_min_score_limit_the_results(server: Server) -> None:
    server.index(*(png(seed) for seed in range(70, 90)))
    assert len(ids(server.search(png(70)))) == 10
    assert len(ids(server.search(png(70), k=3))) == 3
    best = server.search(png(70), k=20).json()["results"]
    threshold = best[7]["score"]
    kept = server.search(png(70), k=1000, min_score=threshold).json()["results"]
    assert min(h["score"] for h in kept) >= threshold
    assert len(kept) >= 8


def test_one_bad_image_fails_alone(server: Server) -> None:
    reply = server.index(png(90), b"not an image", b"", png(91), ids='["a90","b90","c90","a90"]')
    assert reply.status_code == 200
    body = reply.json()
    assert body["errors"] is True
    assert [i["status"] for i in body["items"]] == ["created", "failed", "failed", "failed"]
    codes = [i["error"]["code"] for i in body["items"][1:]]
    assert codes == ["unknown-format", "empty-file", "duplicate-id"]
    assert server.http.get("/images/b90").status_code == 404


def test_the_same_bytes_twice_in_a_request_are_one_image(server: Server) -> None:
    reply = server.index(png(95), png(95)).json()
    assert reply["errors"] is False
    assert [item["status"] for item in reply["items"]] == ["created", "unchanged"]
    assert reply["items"][0]["id"] == reply["items"][1]["id"]
    reply = server.index(png(96), png(96), metadata='[{"a":1},{"a":2}]').json()
    assert [item["status"] for item in reply["items"]] == ["created", "failed"]
    assert reply["items"][1]["error"]["code"] == "duplicate-id"


def test_every_item_names_its_file(server: Server) -> None:
    files = [("images", ("Größe 1.png", png(97))), ("images", ("../b.jpg", b"not an image"))]
    items = server.http.post("/index", files=files).json()["items"]
    assert [item["file"] for item in items] == ["Größe 1.png", "../b.jpg"]


def test_the_same_bytes_under_several_ids_tie_in_order_of_storing(server: Server) -> None:
    for name in ("tie-b", "tie-a", "tie-c"):
        server.index(png(95), ids=json.dumps([name]))
    hits = [id for id in ids(server.search(png(95), k=1000)) if id.startswith("tie-")]
    assert hits == ["tie-b", "tie-a", "tie-c"]
    server.index(png(96), ids='["tie-b"]')
    server.index(png(95), ids='["tie-b"]')
    hits = [id for id in ids(server.search(png(95), k=1000)) if id.startswith("tie-")]
    assert hits == ["tie-a", "tie-c", "tie-b"]


def test_a_restart_keeps_everything_and_every_rank(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model) as first:
        first.index(*(png(seed) for seed in range(40)))
        first.index(png(3), ids='["copy"]')
        first.index(png(100), ids='["dead"]', metadata='[{"x":1}]')
        first.index(png(101), ids='["moved"]', metadata='[{"x":2}]')
        first.index(png(102), ids='["moved"]')
        first.http.delete("/images/dead")
        before = [first.search(png(s), k=1000).json()["results"] for s in range(5)]
        stats = first.http.get("/stats").json()
        assert len(before[0]) == stats["images"] == 42
    with Server(tmp_path, model=random_model) as second:
        assert [second.search(png(s), k=1000).json()["results"] for s in range(5)] == before
        again = second.http.get("/stats").json()
        del stats["feed"]["replicas"], again["feed"]["replicas"]
        assert again == stats
        assert second.index(png(5)).json()["items"][0]["status"] == "unchanged"


def test_searches_during_writes_see_one_consistent_state(server: Server) -> None:
    """One image is replaced over and over, and every search finds it exactly once."""
    server.index(png(200), ids='["flip"]')
    stop = threading.Event()
    errors: list[str] = []

    def write() -> None:
        seed = 200
        while not stop.is_set():
            seed = 401 - seed
            reply = server.index(png(seed), ids='["flip"]')
            if reply.json()["items"][0]["status"] != "replaced":
                errors.append(reply.text)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(150):
            hits = ids(server.search(png(200), k=1000))
            if hits.count("flip") != 1:
                errors.append(f"found {hits.count('flip')} times")
    finally:
        stop.set()
        writer.join()
    assert errors == []


def test_codes_of_two_models_are_never_mixed(random_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-model"
    other_id = make_artifact(other, seed=9)
    folder = tmp_path / "service"
    folder.mkdir()
    with Server(folder, model=random_model) as first:
        first.index(png(1))
        id = first.http.get("/model").json()["id"]
        refused = first.index(png(2), model=other_id)
        assert (refused.status_code, refused.json()["code"]) == (409, "other-model")
        assert first.index(png(2), model=id).status_code == 200
    with Server(folder, model=other) as second:
        reply = second.http.get("/readyz")
        assert reply.status_code == 503
        detail = reply.json()["detail"]
        assert id in detail and other_id in detail and "GPQ_MODEL" in detail
        assert second.search(png(1)).status_code == 503
        assert second.index(png(1)).status_code == 503
        assert second.http.get("/livez").status_code == 200
    with Server(folder, model=random_model) as third:
        assert len(ids(third.search(png(1)))) == 2


def test_an_empty_database_accepts_any_model(random_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-model"
    make_artifact(other, seed=9)
    with Server(tmp_path, model=random_model):
        pass
    with Server(tmp_path, model=other) as second:
        assert second.index(png(1)).status_code == 200


def test_a_search_by_id_uses_the_code_if_originals_are_not_kept(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, image_store="none") as server:
        server.index(png(1), ids='["one"]')
        reply = server.http.post("/search", json={"id": "one"}).json()
        assert reply["query"] == "code"
        assert reply["results"][0]["id"] == "one"
        assert reply["results"][0]["score"] == pytest.approx(1)
    assert {p.name for p in (tmp_path / "data").iterdir()} <= {"gpq.db", "gpq.db-wal", "gpq.db-shm"}


def test_images_with_odd_names_and_media_types_are_stored(server: Server) -> None:
    jpeg = encoded(quarters(), "JPEG", quality=95)
    gif = encoded(noise(1), "GIF", save_all=True, append_images=[noise(s) for s in range(2, 120)])
    odd = [
        ("photo.txt", png(300), "text/plain"),
        ("../../../etc/passwd", png(301), "image/png"),
        ("C:\\evil\\..\\x.exe", png(302), "application/x-msdownload"),
        ("x" * 1000 + ".png", png(303), "image/png"),
        ("möbel \u202e.gif", gif, ""),
        ("a.png", jpeg, "image/webp"),
    ]
    files = [("images", part) for part in odd]
    names = json.dumps([f"odd-{n}" for n in range(len(odd))])
    body = server.http.post("/index", files=files, data={"ids": names}).json()
    assert [i["status"] for i in body["items"]] == ["created"] * len(odd)
    assert not list(server.folder.parent.rglob("passwd"))
    kept = [p for p in (server.folder / "data" / "images").glob("??/*") if p.is_file()]
    assert all(len(p.name) == 64 for p in kept)


def test_the_shipped_model_finds_images_of_the_same_class(sample: Path, tmp_path: Path) -> None:
    """Counts the first ten hits of 300 test images of ten classes, without the query itself."""
    files = sorted((sample / "test").rglob("*.jpg"))
    names = [f"{p.parent.name}-{p.stem}" for p in files]
    assert len(files) == 300
    with Server(tmp_path, model=SHIPPED) as server:
        reply = server.index(*(p.read_bytes() for p in files), ids=json.dumps(names))
        assert reply.json()["errors"] is False
        right = total = 0
        for path, name in zip(files, names, strict=True):
            hits = [id for id in ids(server.search(path.read_bytes(), k=11)) if id != name][:10]
            right += sum(id.split("-")[0] == path.parent.name for id in hits)
            total += len(hits)
        assert total == 3000
        assert right / total >= 0.70
