"""Tests of images that requests name by their addresses."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import ROOT, commands
from harness.images import png
from harness.server import Server
from tests.service.fetch.test_fetcher import Images, serving

PHOTOGRAPH = (ROOT / "examples" / "shoes" / "0002.jpg").read_bytes()


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    with serving() as server:
        server.files = {
            **{f"/{n}.png": png(n) for n in range(6)},
            "/shoe.jpg": PHOTOGRAPH,
            "/page.html": b"<html></html>",
        }
        server.redirects = {"/away": "http://localhost:1/", "/moved": "/1.png"}
        yield server


@pytest.fixture(scope="module")
def server(
    random_model: Path, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    allowed = f"127.0.0.1:{images.port}"
    with Server(folder, model=random_model, fetch=allowed, copies=True) as running:
        running.index(*(png(n) for n in range(6)), ids=json.dumps([f"i{n}" for n in range(6)]))
        yield running


def at(images: Images, path: str) -> str:
    return f"http://127.0.0.1:{images.port}/{path}"


def test_images_are_stored_from_their_addresses(server: Server, images: Images) -> None:
    urls = [at(images, path) for path in ("shoe.jpg", "none", "page.html", "moved")]
    reply = server.index(
        png(100), image_urls=json.dumps([*urls, "http://127.0.0.1:1/x"]),
        ids='["own", "shoe", "a", "b", "moved", "c"]',
        metadata='[null, {"n": 1}, null, null, null, null]',
    )  # fmt: skip
    assert reply.status_code == 200, reply.text
    items = reply.json()["items"]
    assert [item["status"] for item in items] == [
        "created", "created", "failed", "failed", "created", "failed",
    ]  # fmt: skip
    codes = [item["error"]["code"] for item in items if "error" in item]
    assert codes == ["fetch-failed", "unknown-format", "fetch-refused"]
    assert [item["file"] for item in items[1:5]] == urls
    assert server.http.get("/images/shoe/content").content == PHOTOGRAPH
    assert server.http.get("/images/shoe").json()["metadata"] == {"n": 1}
    assert server.http.get("/images/moved/content").content == png(1)
    alone = server.http.post("/index", files={"image_urls": (None, json.dumps([urls[0]]))})
    assert alone.json()["items"][0]["status"] == "created"
    failed = server.http.post("/index", files={"image_urls": (None, json.dumps([urls[1]]))})
    assert (failed.status_code, failed.json()["code"]) == (422, "all-failed")


def test_images_are_searched_for_by_their_addresses(server: Server, images: Images) -> None:
    expected = server.search(png(3), k=3).json()["results"]
    url = at(images, "3.png")
    form = server.http.post("/search", files={"image_url": (None, url)}, data={"k": 3})
    assert form.json()["results"] == expected
    found = server.http.post("/search", json={"image_url": url, "k": 3, "pages": True}).json()
    assert found["results"] == expected
    assert found["query"] == "image"
    urls = [at(images, "2.png"), at(images, "none"), at(images, "3.png")]
    liked = {"positive": [{"id": "i2"}, {"image_url": url}], "k": 3}
    examples = server.http.post("/search", json=liked)
    assert examples.status_code == 200, examples.text
    wanted = server.http.post(
        "/search",
        files=[
            ("positive", (None, "i2")),
            ("positive", ("3.png", png(3))),
            ("k", (None, "3")),
        ],
    ).json()["results"]
    assert examples.json()["results"] == wanted
    form = server.http.post(
        "/search",
        files=[
            ("positive", (None, "i2")),
            ("positive", (None, url)),
            ("k", (None, "3")),
        ],
    )
    assert form.json()["results"] == wanted
    failed = server.http.post("/search", json={"positive": [{"image_url": urls[1]}]})
    assert (failed.status_code, failed.json()["code"]) == (422, "fetch-failed")
    both = {"positive": [{"id": "i2", "image_url": url}]}
    assert "either id or image_url" in server.http.post("/search", json=both).json()["detail"]
    batch = server.http.post(
        "/search/batch",
        files=[("images", png(4)), ("image_urls", (None, json.dumps(urls)))],
        data={"k": 1},
    )
    entries = batch.json()["queries"]
    assert [entry["results"][0]["id"] for entry in entries if "results" in entry] == [
        "i4", "i2", "i3",
    ]  # fmt: skip
    assert entries[2]["error"]["code"] == "fetch-failed"
    only = server.http.post(
        "/search/batch", files={"image_urls": (None, json.dumps([at(images, "none")]))}
    )
    assert only.json()["queries"][0]["error"]["code"] == "fetch-failed"
    copies = server.http.post("/search/copies", json={"image_url": url}).json()["copies"]
    assert copies[0]["id"] == "i3"
    copies = server.http.post("/search/copies", files={"image_url": (None, url)}).json()["copies"]
    assert copies[0]["id"] == "i3"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:1/x", "fetch-refused"),
        ("http://localhost/x", "fetch-refused"),
        ("http://169.254.169.254/latest/meta-data/", "fetch-refused"),
        ("file:///etc/passwd", "fetch-refused"),
        ("", "invalid-field"),
        ("HOST/away", "fetch-refused"),
        ("HOST/none", "fetch-failed"),
        ("HOST/page.html", "unknown-format"),
    ],
)
def test_addresses_that_cannot_be_used_are_named(
    url: str, code: str, server: Server, images: Images
) -> None:
    url = url.replace("HOST", f"http://127.0.0.1:{images.port}")
    reply = server.http.post("/search", json={"image_url": url})
    status = 415 if code == "unknown-format" else 422
    assert (reply.status_code, reply.json()["code"]) in [(status, code), (422, "fetch-refused")]


@pytest.mark.parametrize("urls", ["x", "{}", "[1]", '["a"', '"http://a.org"', "[" * 300_000])
def test_image_urls_are_an_array_of_strings(urls: str, server: Server) -> None:
    for path in ("/index", "/search/batch"):
        reply = server.http.post(path, files={"image_urls": (None, urls)})
        assert reply.status_code == 422, reply.text
        assert "image_urls" in reply.json()["detail"]


def test_one_query_is_searched_for(server: Server, images: Images) -> None:
    url = at(images, "3.png")
    for fields in ({"image": png(1), "image_url": (None, url)}, {"k": (None, "1")}):
        reply = server.http.post("/search", files=fields)
        assert (reply.status_code, reply.json()["code"]) == (422, "missing-field")
    reply = server.http.post("/search", json={"image_url": url, "id": "i1"})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid-field")


def test_nothing_is_fetched_unless_it_is_allowed(
    random_model: Path, tmp_path: Path, images: Images
) -> None:
    with ExitStack() as stack:
        (tmp_path / "off").mkdir()
        (tmp_path / "public").mkdir()
        off = stack.enter_context(Server(tmp_path / "off", model=random_model))
        public = stack.enter_context(
            Server(tmp_path / "public", model=random_model, fetch="public")
        )
        asked = len(images.asked)
        url = at(images, "3.png")
        for server, status, code in ((off, 409, "fetch-off"), (public, 422, "fetch-refused")):
            reply = server.http.post("/search", json={"image_url": url})
            assert (reply.status_code, reply.json()["code"]) == (status, code)
        reply = off.http.post("/index", files={"image_urls": (None, json.dumps([url]))})
        assert (reply.status_code, reply.json()["code"]) == (409, "fetch-off")
        reply = public.http.post("/search", json={"image_url": "http://localhost/x"})
        assert reply.json()["code"] == "fetch-refused"
        assert "not public" in reply.json()["detail"]
        assert len(images.asked) == asked


def test_a_wrong_setting_is_named_at_the_start(random_model: Path, tmp_path: Path) -> None:
    done = commands.run(folder=tmp_path, model=random_model, fetch="https://a.org")
    assert done.returncode == 1
    assert "GPQ_FETCH" in done.stderr
