"""Tests of batch search, listing, metadata, thumbnails, content, checksums and OpenAPI."""

import hashlib
import io
import json
import socket
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from gpq.pixels.formats import formats
from harness.images import encoded, noise, png, quarters
from harness.server import Server
from tests.image_cases import CASES

CORNERS = {(6, 6): (255, 0, 0), (26, 6): (0, 255, 0), (6, 26): (0, 0, 255), (26, 26): (255,) * 3}


def assert_problem(reply, status: int, code: str) -> None:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["code"] == code


def batch(server: Server, *images: bytes, **fields: object):
    files = [("images", (f"{n}", data)) for n, data in enumerate(images)]
    return server.http.post("/search/batch", files=files, data=fields)


def test_a_batch_finds_the_same_hits_as_single_searches(server: Server) -> None:
    server.index(*(png(seed) for seed in range(20)))
    queries = [png(seed) for seed in (3, 500, 7)]
    body = batch(server, *queries, k=9).json()
    assert body["model"] == server.http.get("/model").json()["id"]
    assert body["took_ms"] > 0
    for entry, query in zip(body["queries"], queries, strict=True):
        alone = server.search(query, k=9).json()["results"]
        assert [h["id"] for h in entry["results"]] == [h["id"] for h in alone]
        assert np.allclose([h["score"] for h in entry["results"]], [h["score"] for h in alone])
        assert len(alone) == 9
    threshold = body["queries"][0]["results"][2]["score"]
    kept = batch(server, queries[0], k=9, min_score=threshold).json()["queries"][0]["results"]
    assert 3 <= len(kept) < 9


def test_metadata_of_any_content_are_returned_as_they_were_sent(server: Server) -> None:
    described = {"né": ['"\\', "\u2028</script>", 1e-300, -0.5, None, True, {}], "": "\x7f"}
    server.index(png(1), png(2), metadata=json.dumps([described, None]))
    assert server.search(png(1), k=1).json()["results"][0]["metadata"] == described
    for entry, expected in zip(
        batch(server, png(1), png(2), k=1).json()["queries"], (described, None), strict=True
    ):
        assert entry["results"][0]["metadata"] == expected


def test_a_bad_image_of_a_batch_fails_alone(server: Server) -> None:
    server.index(png(1))
    queries = batch(server, png(1), b"not an image", b"", png(2), k=1).json()["queries"]
    assert [set(entry) for entry in queries] == [{"results"}, {"error"}, {"error"}, {"results"}]
    assert queries[1]["error"]["code"] == "unknown-format"
    assert queries[1]["error"]["status"] == 415
    assert queries[2]["error"]["code"] == "empty-file"
    only_bad = batch(server, b"not an image")
    assert only_bad.status_code == 200
    assert set(only_bad.json()["queries"][0]) == {"error"}


def test_images_with_the_bytes_of_the_query_can_be_left_out(server: Server) -> None:
    server.index(png(700), png(700), png(701), ids='["same-1","same-2","other"]')
    plain = [hit["id"] for hit in server.search(png(700), k=1000).json()["results"]]
    assert {"same-1", "same-2", "other"} <= set(plain)
    rest = [id for id in plain if id not in ("same-1", "same-2")]
    for k in (3, 1000):
        found = server.search(png(700), k=k, exclude_same=True).json()["results"]
        assert [hit["id"] for hit in found] == rest[:k]
        by_id = {"id": "same-2", "k": k, "exclude_same": True}
        found = server.http.post("/search", json=by_id).json()["results"]
        assert [hit["id"] for hit in found] == rest[:k]
        queries = batch(server, png(700), b"", png(701), k=k, exclude_same=True).json()["queries"]
        assert [hit["id"] for hit in queries[0]["results"]] == rest[:k]
        assert "other" not in [hit["id"] for hit in queries[2]["results"]]


def test_invalid_batches_are_refused(server: Server) -> None:
    assert_problem(server.http.post("/search/batch", json={}), 415, "not-multipart")
    reply = server.http.post("/search/batch", files={"image": png(1)})
    assert_problem(reply, 422, "missing-field")
    assert_problem(batch(server, png(1), k=0), 422, "invalid-field")
    assert_problem(batch(server, png(1), depth=3), 422, "invalid-field")
    assert_problem(batch(server, *[png(1)] * 101, k=1000), 422, "too-many-results")
    assert_problem(batch(server, *[b""] * 1001), 413, "too-many-images")


def test_pages_list_every_image_in_order_of_storing(server: Server) -> None:
    server.index(*(png(600 + n) for n in range(7)), ids=json.dumps([f"list-{n}" for n in range(7)]))
    server.index(png(699), ids='["list-2"]', metadata='[{"a":1}]')
    found, cursor = [], "0"
    while cursor is not None:
        page = server.http.get("/images", params={"limit": 3, "cursor": cursor}).json()
        assert len(page["images"]) <= 3
        found += page["images"]
        cursor = page["next_cursor"]
    assert [image["seq"] for image in found] == sorted(image["seq"] for image in found)
    listed = [image["id"] for image in found if image["id"].startswith("list-")]
    assert listed == [f"list-{n}" for n in (0, 1, 3, 4, 5, 6, 2)]
    assert {**found[-1], "tags": []} == server.http.get("/images/list-2").json()
    assert found[-1]["metadata"] == {"a": 1}
    assert len(found) == server.http.get("/stats").json()["images"]
    assert len(server.http.get("/images").json()["images"]) == min(100, len(found))
    beyond = server.http.get("/images", params={"cursor": "9" * 18}).json()
    assert beyond == {"images": [], "next_cursor": None}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "cursor=-1", "cursor=x", "cursor=" + "9" * 19]
)
def test_invalid_parameters_of_a_page_are_refused(query: str, server: Server) -> None:
    assert_problem(server.http.get(f"/images?{query}"), 422, "invalid-field")


def test_patch_changes_only_the_metadata(server: Server) -> None:
    server.index(png(40), ids='["patched"]', metadata='[{"old":true}]')
    before = server.http.get("/images/patched").json()
    reply = server.http.patch("/images/patched", json={"metadata": {"colour": "röd"}})
    assert reply.status_code == 200
    assert reply.json() == before | {"metadata": {"colour": "röd"}}
    assert server.http.get("/images/patched").json() == reply.json()
    hits = {h["id"]: h["metadata"] for h in server.search(png(40), k=1000).json()["results"]}
    assert hits["patched"] == {"colour": "röd"}
    assert server.http.patch("/images/patched", json={"metadata": None}).json()["metadata"] is None
    large = {"metadata": {"text": "ä" * 8000}}
    assert server.http.patch("/images/patched", json=large).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid-json"),
        (b"{}", 422, "invalid-field"),
        (b"[]", 422, "invalid-field"),
        (b'{"metadata":[1]}', 422, "invalid-field"),
        (b'{"metadata":{},"id":"other"}', 422, "invalid-field"),
        (b'{"metadata":{"a":NaN}}', 422, "invalid-metadata"),
        (json.dumps({"metadata": {"a": "x" * 20_000}}).encode(), 422, "metadata-too-large"),
        (b" " * 200_000, 413, "body-too-large"),
    ],
)
def test_invalid_patches_are_refused_and_change_nothing(
    body: bytes, status: int, code: str, server: Server
) -> None:
    server.index(png(41), ids='["kept"]', metadata='[{"a":1}]')
    headers = {"content-type": "application/json"}
    reply = server.http.patch("/images/kept", content=body, headers=headers)
    assert_problem(reply, status, code)
    assert server.http.get("/images/kept").json()["metadata"] == {"a": 1}
    server.http.patch("/images/kept", json={"metadata": {"a": 1}})


def test_unknown_images_cannot_be_patched_or_read(server: Server) -> None:
    for id in ("none", "%00", "x" * 200):
        patched = server.http.patch(f"/images/{id}", json={"metadata": None})
        assert_problem(patched, 404, "no-such-image")
        for part in ("", "/thumbnail", "/content"):
            assert_problem(server.http.get(f"/images/{id}{part}"), 404, "no-such-image")
    assert_problem(server.http.patch("/images/none", content=b"x"), 415, "not-json")


def test_content_is_the_uploaded_bytes_and_never_runs_as_a_page(server: Server) -> None:
    gif = encoded(noise(50), "GIF")
    server.index(gif, ids='["gif"]')
    reply = server.http.get("/images/gif/content")
    assert reply.content == gif
    assert reply.headers["content-type"] == "image/gif"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in reply.headers["content-security-policy"]
    again = {"If-None-Match": reply.headers["etag"]}
    assert server.http.get("/images/gif/content", headers=again).status_code == 304
    server.index(png(51), ids='["gif"]')
    replaced = server.http.get("/images/gif/content", headers=again)
    assert (replaced.status_code, replaced.content) == (200, png(51))


def test_if_none_match_takes_lists_weak_tags_and_a_star(server: Server) -> None:
    server.index(png(52), ids='["tagged"]')
    for part in ("content", "thumbnail"):
        tag = server.http.get(f"/images/tagged/{part}").headers["etag"]
        known = ["*", f"W/{tag}", f'"other", {tag}', f'"a, b",W/{tag}, "c"']
        for value in known:
            reply = server.http.get(f"/images/tagged/{part}", headers={"If-None-Match": value})
            assert (reply.status_code, reply.content) == (304, b""), value
            assert reply.headers["etag"] == tag
        for value in ("", '"other"', tag.strip('"'), f"{tag[:-2]}0", '"*"'):
            reply = server.http.get(f"/images/tagged/{part}", headers={"If-None-Match": value})
            assert reply.status_code == 200, value


def test_a_field_that_is_sent_twice_is_refused(server: Server) -> None:
    image = ("a.png", png(53))
    for name in ("ids", "metadata", "model"):
        fields = {name: ["[null]", "[null]"]}
        reply = server.http.post("/index", files={"images": image}, data=fields)
        assert_problem(reply, 422, "repeated-field")
        assert reply.json()["detail"].startswith(f"{name}: ")
    for name in ("k", "min_score", "model"):
        reply = server.http.post("/search", files={"image": image}, data={name: ["1", "1"]})
        assert_problem(reply, 422, "repeated-field")


def test_no_path_is_redirected(server: Server) -> None:
    for path in ("/images/", "/stats/", "/docs/"):
        reply = server.http.get(path, headers={"host": "localhost"})
        assert_problem(reply, 404, "not-found")


def test_a_thumbnail_is_small_upright_and_in_colour(server: Server) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    large = quarters().resize((1600, 800), Image.Resampling.NEAREST)
    turned = large.transpose(Image.Transpose.ROTATE_90)
    server.index(encoded(turned, "JPEG", exif=exif, quality=95), ids='["turned"]')
    reply = server.http.get("/images/turned/thumbnail")
    assert reply.headers["content-type"] == "image/webp"
    image = Image.open(io.BytesIO(reply.content)).convert("RGB")
    assert image.size == (256, 128)
    places = {(40, 20): (255, 0, 0), (200, 20): (0, 255, 0), (40, 100): (0, 0, 255)}
    for place, colour in places.items():
        assert np.allclose(image.getpixel(place), colour, atol=20)
    etag = {"If-None-Match": reply.headers["etag"]}
    assert server.http.get("/images/turned/thumbnail", headers=etag).status_code == 304


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (5, 3000)])
def test_images_of_extreme_shapes_have_thumbnails(size: tuple[int, int], server: Server) -> None:
    server.index(encoded(Image.new("RGB", size, "red")), ids='["odd"]')
    reply = server.http.get("/images/odd/thumbnail")
    image = Image.open(io.BytesIO(reply.content))
    assert max(image.size) == min(256, max(size))
    assert min(image.size) >= 1


def test_every_kind_of_image_is_stored_found_and_shown(server: Server) -> None:
    formats()  # registers the HEIF writer with Pillow
    images = {f"kind-{n}": CASES[name]() for n, name in enumerate(CASES)}
    body = server.index(*images.values(), ids=json.dumps(list(images))).json()
    assert {item["status"] for item in body["items"]} == {"created"}
    for id, name in zip(images, CASES, strict=True):
        shown = server.http.get(f"/images/{id}/thumbnail").content
        image = Image.open(io.BytesIO(shown)).convert("RGB")
        for place, colour in CORNERS.items():
            assert np.allclose(image.getpixel(place), colour, atol=60), name
    plain = list(CASES).index("PNG RGBA")
    reply = server.http.post("/search", json={"id": f"kind-{plain}", "k": 1000}).json()
    assert set(images) <= {hit["id"] for hit in reply["results"]}


def test_an_image_of_a_hundred_megapixels_is_stored_in_bounded_memory(
    random_model: Path, tmp_path: Path
) -> None:
    """A transparent image takes the most memory; it returns to the system afterwards."""
    image = Image.new("RGBA", (10_000, 10_000), (255, 0, 0, 128))
    data = encoded(image, compress_level=1)
    with Server(tmp_path, model=random_model) as server:
        server.index(png(1))
        before = server.rss()
        server.forget_peak_rss()
        assert server.index(data, ids='["large"]').json()["items"][0]["status"] == "created"
        assert server.peak_rss() - before < 2 * 2**30
        assert server.rss() - before < 2**29
        shown = Image.open(io.BytesIO(server.http.get("/images/large/thumbnail").content))
        assert np.allclose(shown.convert("RGB").getpixel((99, 99)), (255, 127, 127), atol=8)
        larger = encoded(Image.new("1", (10_001, 10_000)))
        assert server.index(larger).json()["items"][0]["error"]["code"] == "too-many-pixels"


def test_content_is_served_in_parts_and_head_is_answered(server: Server) -> None:
    server.index(png(60), ids='["ranged"]')
    part = server.http.get("/images/ranged/content", headers={"Range": "bytes=8-15"})
    assert (part.status_code, part.content) == (206, png(60)[8:16])
    for path in ("/livez", "/readyz", "/images/ranged", "/images/ranged/content", "/model"):
        head = server.http.head(path)
        assert (head.status_code, head.content) == (200, b""), path
    assert server.http.head("/images/none").status_code == 404


def test_a_failed_item_without_an_id_has_the_id_null(server: Server) -> None:
    items = server.index(png(1), b"not an image").json()["items"]
    assert items[1]["id"] is None
    assert "error" not in items[0]


def test_empty_text_fields_count_as_absent(server: Server) -> None:
    reply = server.index(png(61), ids="", metadata="", model="")
    assert reply.status_code == 200, reply.text
    assert server.search(png(61), k="", min_score="", model="").status_code == 200


def test_content_is_404_if_originals_are_not_kept(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model, image_store="none") as server:
        server.index(png(1), ids='["a"]')
        for part in ("content", "thumbnail"):
            assert_problem(server.http.get(f"/images/a/{part}"), 404, "no-original")


def test_a_request_that_names_another_model_is_refused(server: Server) -> None:
    server.index(png(1), ids='["m"]')
    right, wrong = server.http.get("/model").json()["id"], "0" * 64
    assert_problem(server.search(png(1), model=wrong), 409, "other-model")
    assert_problem(batch(server, png(1), model=wrong), 409, "other-model")
    by_id = {"id": "m", "model": wrong}
    assert_problem(server.http.post("/search", json=by_id), 409, "other-model")
    assert_problem(server.index(png(1), model=wrong), 409, "other-model")
    assert server.search(png(1), model=right).status_code == 200
    assert batch(server, png(1), model=right).status_code == 200
    assert server.http.post("/search", json=by_id | {"model": right}).status_code == 200


def test_wait_all_on_one_process_answers_200(server: Server) -> None:
    files = {"images": png(900)}
    reply = server.http.post("/index", files=files, params={"wait": "all"})
    assert reply.status_code == 200
    feed = server.http.get("/stats").json()["feed"]
    assert feed["replicas"][0]["applied"] == feed["head"]
    again = server.http.post("/index", files=files, params={"wait": "all"})
    assert again.json()["items"][0]["status"] == "unchanged"
    wrong = server.http.post("/index", files=files, params={"wait": "some"})
    assert_problem(wrong, 422, "invalid-field")


def test_stats_can_compare_memory_with_the_database(server: Server) -> None:
    server.index(*(png(seed) for seed in range(5)))
    stats = server.http.get("/stats", params={"checksum": True}).json()
    assert stats["checksum"]["memory"] == stats["checksum"]["database"]
    assert stats["checksum"]["seq"] == stats["feed"]["head"]
    assert "checksum" not in server.http.get("/stats").json()


def test_a_reply_before_the_end_of_the_body_reaches_the_client(server: Server) -> None:
    """A large upload to an unknown path gets its reply at once, and the reply is not lost."""
    host, port = server.url.removeprefix("http://").split(":")
    size = 20 * 2**20
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size
        )
        connection.sendall(b"x" * 1000)
        assert connection.recv(100).startswith(b"HTTP/1.1 404")
        for _ in range((size - 1000) // 1000):
            connection.sendall(b"x" * 1000)
    reply = server.http.post("/nowhere", content=b"x" * size)
    assert_problem(reply, 404, "not-found")


OPERATIONS = {
    ("post", "/index"), ("post", "/search"), ("post", "/search/batch"), ("get", "/images"),
    ("post", "/search/copies"), ("get", "/duplicates"), ("post", "/jobs/duplicates"),
    ("get", "/images/{id}"), ("patch", "/images/{id}"), ("delete", "/images/{id}"),
    ("get", "/images/{id}/thumbnail"), ("get", "/images/{id}/content"), ("get", "/model"),
    ("get", "/stats"), ("get", "/livez"), ("get", "/readyz"), ("get", "/metrics"),
    ("get", "/models"), ("post", "/models"), ("delete", "/models/{id}"),
    ("post", "/models/{id}/activate"), ("post", "/models/rollback"), ("post", "/jobs/import"),
    ("post", "/jobs/reindex"), ("get", "/jobs"), ("get", "/jobs/{number}"),
    ("delete", "/jobs/{number}"), ("get", "/jobs/{number}/failures"),
    ("get", "/fields"), ("put", "/fields/{name}"), ("delete", "/fields/{name}"),
    ("get", "/keys"), ("post", "/keys"), ("delete", "/keys/{number}"),
}  # fmt: skip
WITHOUT_BODY = {"/models/{id}/activate", "/models/rollback", "/jobs/reindex"}


def resolved(schema: dict, document: dict) -> dict:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return {**schema, "components": document["components"]}


def test_replies_to_searches_match_their_schemas(server: Server) -> None:
    ids = {"ids": '["schema-1","schema-2"]', "metadata": '[{"shelf":"é"},null]'}
    server.index(png(901), png(902), **ids).raise_for_status()
    document = server.http.get("/openapi.json").json()
    images = [("images", png(901)), ("images", b"not an image")]
    replies = {
        "/search": server.search(png(901), k=2),
        "/search/batch": server.http.post("/search/batch", files=images),
    }
    for path, reply in replies.items():
        assert reply.status_code == 200, reply.text
        content = document["paths"][path]["post"]["responses"]["200"]["content"]
        schema = resolved(content["application/json"]["schema"], document)
        jsonschema.validate(reply.json(), schema)
        assert set(reply.json()) == set(schema["properties"])


def test_every_route_has_examples_that_match_its_schema(server: Server) -> None:
    document = server.http.get("/openapi.json").json()
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == OPERATIONS
    for name, operation in operations.items():
        assert operation["summary"], name
        problem = operation["responses"]["default"]["content"]["application/problem+json"]
        jsonschema.validate(problem["schema"]["example"], problem["schema"])
        contents = operation.get("requestBody", {}).get("content", {})
        has_body = name[0] in ("post", "patch") and name[1] not in WITHOUT_BODY
        assert bool(contents) == has_body, name
        for media_type, content in contents.items():
            assert "example" in content, name
            assert content["schema"]["properties"], name
            if media_type == "application/json":
                jsonschema.validate(content["example"], content["schema"])
        for status, answer in operation["responses"].items():
            for content in answer.get("content", {}).values():
                schema = resolved(content["schema"], document)
                example = content.get("example", schema.get("example"))
                assert example is not None, (name, status)
                jsonschema.validate(example, schema)


def test_the_default_id_begins_the_sha256_of_the_bytes(server: Server) -> None:
    reply = server.index(png(77)).json()
    assert reply["items"][0]["id"] == hashlib.sha256(png(77)).hexdigest()[:32]
