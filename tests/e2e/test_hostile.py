"""Tests that bad input gets a clear 4xx, never a 5xx or a crash, in bounded memory."""

import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.images import encoded, noise, png
from harness.server import Server
from tests.conftest import new_database

BODY_LIMIT = 2 * 2**20
PIXEL_LIMIT = 2_000_000
RSS_GROWTH = 300 * 2**20


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    limits = {"max_body_bytes": BODY_LIMIT, "max_pixels": PIXEL_LIMIT, "max_images": 20}
    url = new_database(request, folder)
    with Server(folder, model=random_model, database_url=url, **limits) as running:
        running.index(png(0), ids='["good"]')
        yield running


@pytest.fixture(autouse=True)
def survives(server: Server) -> Iterator[None]:
    """Checks after each test that the service is alive and small, and finds the good image."""
    before = server.rss()
    server.forget_peak_rss()
    yield
    assert server.peak_rss() - before < RSS_GROWTH
    assert server.search(png(0)).json()["results"][0]["id"] == "good"


def assert_problem(reply, status: int, code: str) -> dict:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body = reply.json()
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(body)
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"]
    return body


def huge_png(width: int, height: int) -> bytes:
    """Returns a well-formed, black, one-bit PNG: a small file of many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * ((width // 8 + 1) * min(height, 2000)), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


UPLOADS = {
    "empty": (b"", 400, "empty-file"),
    "text": (b"hello, I am an image", 415, "unknown-format"),
    "html": (b"<html><script>alert(1)</script>", 415, "unknown-format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "unknown-format"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "unknown-format"),
    "truncated png": (png(1)[:900], 400, "broken-image"),
    "truncated jpeg": (encoded(noise(1, (300, 300)), "JPEG")[:9000], 400, "broken-image"),
    "signature only": (b"\x89PNG\r\n\x1a\n", 400, "broken-image"),
    "40,000 × 40,000": (huge_png(40_000, 40_000), 413, "too-many-pixels"),
    "just too many": (huge_png(2001, 1000), 413, "too-many-pixels"),
    "floating point": (encoded(Image.new("F", (8, 8)), "TIFF"), 400, "broken-image"),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_a_search_with_a_bad_image_is_refused(name: str, server: Server) -> None:
    data, status, code = UPLOADS[name]
    reply = server.http.post("/search", files={"image": ("x.png", data)})
    assert_problem(reply, status, code)


@pytest.mark.parametrize("name", UPLOADS)
def test_a_bad_image_fails_alone_in_an_index_request(name: str, server: Server) -> None:
    data, _, code = UPLOADS[name]
    body = assert_problem(server.index(data), 422, "all-failed")
    assert [item["error"]["code"] for item in body["items"]] == [code]
    mixed = server.index(png(0), data, ids='["good","bad"]').json()
    assert [item["status"] for item in mixed["items"]] == ["unchanged", "failed"]


def test_a_form_of_ten_thousand_parts_is_refused(server: Server) -> None:
    files = [("images", (f"{n}", b"x")) for n in range(10_000)]
    body = assert_problem(server.http.post("/index", files=files), 413, "too-many-images")
    assert "more than 20 files" in body["detail"] and "GPQ_MAX_IMAGES" in body["detail"]
    fields = {f"field{n}": "x" for n in range(10_000)}
    reply = server.http.post("/index", files={"images": png(1)}, data=fields)
    assert_problem(reply, 400, "invalid-form")


def test_a_body_over_the_limit_is_refused(server: Server) -> None:
    reply = server.index(b"\xff\xd8\xff" + b"x" * (BODY_LIMIT + 1))
    assert_problem(reply, 413, "body-too-large")
    assert_problem(server.search(b"x" * 20 * BODY_LIMIT), 413, "body-too-large")


def test_a_chunked_body_over_the_limit_is_refused(server: Server) -> None:
    def endless(size: int) -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        for _ in range(size // 65536):
            yield b"x" * 65536

    headers = {"content-type": "multipart/form-data; boundary=b"}
    reply = server.http.post("/search", content=endless(2 * BODY_LIMIT), headers=headers)
    assert_problem(reply, 413, "body-too-large")
    reply = server.http.post("/search", content=endless(BODY_LIMIT // 2), headers=headers)
    assert reply.status_code in (400, 422)


def test_a_chunked_body_within_the_limit_works(server: Server) -> None:
    data = png(0)

    def parts() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        yield from (data[n : n + 100] for n in range(0, len(data), 100))
        yield b"\r\n--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    reply = server.http.post("/search", content=parts(), headers=headers)
    assert reply.json()["results"][0]["id"] == "good"


def test_a_json_body_over_its_limit_is_refused(server: Server) -> None:
    reply = server.http.post("/search", json={"id": "x" * 100_000})
    assert_problem(reply, 413, "body-too-large")


def test_clients_that_hang_up_do_no_harm(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /index HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
            )


FORMS = {
    "no images": ({}, {"ids": "[]"}, 422, "missing-field"),
    "other name": ({"image": b"x"}, {}, 422, "unknown-field"),
    "ids not json": ({"images": b"x"}, {"ids": "["}, 422, "invalid-json"),
    "ids not array": ({"images": b"x"}, {"ids": '"a"'}, 422, "wrong-length"),
    "ids too long": ({"images": b"x"}, {"ids": f"[{'{},' * 50_000}0]"}, 422, "field-too-large"),
    "ids too many": ({"images": b"x"}, {"ids": '["a","b"]'}, 422, "wrong-length"),
    "id a number": ({"images": b"x"}, {"ids": "[7]"}, 422, "invalid-id"),
    "deep json": ({"images": b"x"}, {"metadata": "[" * 100_000}, 422, "invalid-json"),
    "metadata array": ({"images": b"x"}, {"metadata": "[[1]]"}, 422, "invalid-metadata"),
    "metadata nan": ({"images": b"x"}, {"metadata": '[{"a":NaN}]'}, 422, "invalid-metadata"),
    "metadata infinite": ({"images": b"x"}, {"metadata": '[{"a":1e999}]'}, 422, "invalid-metadata"),
    "metadata surrogate": (
        {"images": b"x"},
        {"metadata": '[{"a":"\\ud800"}]'},
        422,
        "invalid-metadata",
    ),
    "metadata deep": (
        {"images": b"x"},
        {"metadata": '[{"a":' + "[" * 260 + "]" * 260 + "}]"},
        422,
        "invalid-metadata",
    ),
    "metadata large": (
        {"images": b"x"},
        {"metadata": json.dumps([{"a": "x" * 20_000}])},
        422,
        "metadata-too-large",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_invalid_fields_of_an_index_request_are_refused(name: str, server: Server) -> None:
    files, fields, status, code = FORMS[name]
    reply = server.http.post("/index", files=files or {"dummy": b""}, data=fields)
    if not files:
        code = "unknown-field"
    assert_problem(reply, status, code)


@pytest.mark.parametrize("id", ["", " ", "a/b", "ä", "a" * 129, "a\n", "<x>"])
def test_ids_that_do_not_match_the_pattern_are_refused(id: str, server: Server) -> None:
    body = assert_problem(server.index(png(0), ids=json.dumps([id])), 422, "all-failed")
    assert body["items"][0]["error"]["code"] == "invalid-id"


@pytest.mark.parametrize(
    "fields",
    [{"k": "0"}, {"k": "1001"}, {"k": "ten"}, {"k": "1.5"}, {"min_score": "nan"},
     {"min_score": "2"}, {"K": "3"}],
)  # fmt: skip
def test_invalid_fields_of_a_search_are_refused(fields: dict, server: Server) -> None:
    reply = server.http.post("/search", files={"image": png(0)}, data=fields)
    body = assert_problem(reply, 422, "invalid-field")
    assert next(iter(fields)) in body["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", b'{"id":5}', b'{"id":"a/b"}', b'{"id":"x","k":0}',
     b'{"id":"x","more":1}', b"[" * 50_000, b"\xff\xfe"],
)  # fmt: skip
def test_invalid_json_bodies_are_refused(body: bytes, server: Server) -> None:
    headers = {"content-type": "application/json"}
    reply = server.http.post("/search", content=body, headers=headers)
    assert reply.status_code == 422, reply.text
    assert reply.headers["content-type"] == "application/problem+json"


def test_other_content_types_are_refused(server: Server) -> None:
    for path in ("/index", "/search"):
        headers = {"content-type": "image/png"}
        reply = server.http.post(path, content=png(0), headers=headers)
        assert_problem(reply, 415, "not-multipart")
        assert_problem(server.http.post(path), 415, "not-multipart")
        headers = {"content-type": "multipart/form-data"}
        reply = server.http.post(path, content=b"x", headers=headers)
        assert_problem(reply, 400, "invalid-form")


def test_a_text_field_in_place_of_a_file_is_refused(server: Server) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nhello\r\n--b--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    reply = server.http.post("/search", content=body, headers=headers)
    assert_problem(reply, 422, "not-a-file")


def test_unknown_paths_and_methods_are_refused(server: Server) -> None:
    assert_problem(server.http.get("/nothing"), 404, "not-found")
    assert_problem(server.http.get("/images/none"), 404, "no-such-image")
    assert_problem(server.http.get("/images/..%2f..%2fetc%2fpasswd"), 404, "not-found")
    assert_problem(server.http.put("/index"), 405, "method-not-allowed")
    assert_problem(server.http.delete("/search"), 405, "method-not-allowed")


def test_a_lone_surrogate_in_an_id_fails_alone(server: Server) -> None:
    reply = server.index(png(0), png(1), ids='["good","\\ud800"]')
    assert reply.status_code == 200, reply.text
    assert [i["status"] for i in reply.json()["items"]] == ["unchanged", "failed"]
    assert_problem(server.index(png(1), ids='["\\ud800"]'), 422, "all-failed")
    long = server.index(png(1), ids=json.dumps(["x" * 100_000]))
    assert len(long.content) < 2000


@pytest.mark.parametrize(
    "charset", ["undefined", "punycode", "unicode_escape", "nonsense", "utf-16"]
)
def test_odd_charsets_are_refused(charset: str, server: Server) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="\\ud800"; filename="\\ud800"\r\n\r\nx\r\n'
        b'--b\r\nContent-Disposition: form-data; name="ids"\r\n\r\n["\\ud800"]\r\n--b--\r\n'
    )
    headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    for path in ("/index", "/search"):
        reply = server.http.post(path, content=body, headers=headers)
        assert 400 <= reply.status_code < 500, reply.text


def test_media_types_are_case_insensitive(server: Server) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    reply = server.http.post("/search", content=b'{"id":"good"}', headers=headers)
    assert reply.status_code == 200


def test_many_large_fields_are_refused(server: Server) -> None:
    fields = {f"f{n}": "x" * (BODY_LIMIT // 20) for n in range(10)}
    reply = server.http.post("/index", files={"images": png(1)}, data=fields)
    assert_problem(reply, 400, "invalid-form")


def test_damaged_avif_images_fail_alone(server: Server) -> None:
    random = np.random.default_rng(0)
    good = encoded(noise(1), "AVIF")
    damaged = []
    for _ in range(19):
        data = bytearray(good)
        for place in random.integers(12, len(data), 6):
            data[place] = random.integers(0, 256)
        damaged.append(bytes(data))
    reply = server.index(png(0), *damaged, ids=json.dumps(["good", *map(str, range(19))]))
    assert reply.status_code == 200, reply.text
    assert "failed" in [item["status"] for item in reply.json()["items"]]
    for n in range(19):
        server.http.delete(f"/images/{n}")


def test_a_truncated_form_is_refused_as_a_whole(server: Server) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
    whole = part + png(0) + b"\r\n" + part + png(1) + b"\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    before = server.http.get("/stats").json()["images"]
    for end in (len(part) + 40, len(whole) - 300, len(whole) - 6):
        reply = server.http.post("/index", content=whole[:end], headers=headers)
        body = assert_problem(reply, 400, "invalid-form")
        assert "closing boundary" in body["detail"]
    assert server.http.get("/stats").json()["images"] == before


def test_a_scan_bomb_is_refused_before_it_is_decoded(server: Server) -> None:
    """A progressive JPEG holds its last scan 900 times; each scan is a pass over all pixels."""
    data = encoded(Image.new("L", (1400, 1400)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + scan * 900 + data[-2:]
    started = time.monotonic()
    body = assert_problem(server.search(bomb), 400, "broken-image")
    assert "scans" in body["detail"]
    assert time.monotonic() - started < 5
    assert server.search(data).status_code == 200


def test_a_tile_larger_than_its_image_counts_against_the_limit(server: Server) -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 322: 38_000, 323: 38_000, 324: 0}
    tags[325] = 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    bomb = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(8)
    body = assert_problem(server.search(bomb), 413, "too-many-pixels")
    assert "tile" in body["detail"]


@pytest.mark.parametrize("data", [png(1)[:40] + b"\0\0" + png(1)[42:], b"II*\0" + bytes(60)])
def test_the_error_of_a_damaged_image_reveals_nothing_about_the_process(
    data: bytes, server: Server
) -> None:
    body = assert_problem(server.search(data), 400, "broken-image")
    assert "0x" not in body["detail"]
    assert "BytesIO" not in body["detail"]


def test_ids_that_no_path_can_address_are_refused(server: Server) -> None:
    for id in (".", ".."):
        body = assert_problem(server.index(png(0), ids=json.dumps([id])), 422, "all-failed")
        assert body["items"][0]["error"]["code"] == "invalid-id"


def test_the_memory_of_many_large_images_returns_to_the_system(server: Server) -> None:
    """Sixteen clients send large images; the service decodes a few at a time."""
    large = encoded(Image.new("RGB", (1900, 1050), "blue"), compress_level=1)
    before = server.rss()
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: server.search(large).status_code, range(64)))
    assert set(replies) <= {200, 429}
    assert server.rss() - before < 150 * 2**20


def test_a_length_of_thousands_of_digits_is_an_ordinary_error(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        for digits in (b"9" * 4501, b"0" * 4500 + b"9"):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(
                    b"POST /index HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + digits
                    + b"\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n123456789"
                )  # fmt: skip
                assert connection.recv(4096).startswith(b"HTTP/1.1 400")


def test_an_unread_body_closes_the_connection(random_model: Path, tmp_path: Path) -> None:
    """A client that expects "100 Continue" may send its body nevertheless."""
    with Server(tmp_path, model=random_model, api_keys="key") as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(
                b"POST /index HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            received = b""
            while chunk := connection.recv(4096):
                received += chunk
            assert received.startswith(b"HTTP/1.1 401")
            assert b"connection: close" in received.lower()
