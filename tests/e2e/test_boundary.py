"""Tests of what web pages of other origins can reach."""

from pathlib import Path

import pytest

from harness.images import png
from harness.server import Server

HEADERS = (
    "content-security-policy", "cross-origin-opener-policy", "cross-origin-resource-policy",
    "referrer-policy", "x-content-type-options", "x-frame-options",
)  # fmt: skip


def test_only_own_names_are_answered_without_keys(random_model: Path, tmp_path: Path) -> None:
    allowed = "Images.example.org, 192.0.2.1, 2001:db8:0:0:0:0:0:1"
    with Server(tmp_path, model=random_model, allowed_hosts=allowed) as server:
        port = server.url.rpartition(":")[2]
        own = ["localhost", "LOCALHOST.", f"127.0.0.1:{port}", "127.1.2.3", f"[::1]:{port}"]
        for name in (
            *own,
            "images.example.org:443",
            "images.example.org.",
            "192.0.2.1",
            "[2001:DB8::1]:80",
        ):
            assert server.http.get("/stats", headers={"host": name}).status_code == 200, name
        foreign = ["example.org", "localhost.example.org", "192.0.2.2", "[::2]", "127.0.0.1.nip.io"]
        odd = ["", "[", "localhost:x", "evil.example@127.0.0.1", "localhost/x", "localhost?x"]
        for name in (*foreign, *odd):
            for method, path in (("GET", "/stats"), ("GET", "/"), ("DELETE", "/images/x")):
                reply = server.http.request(method, path, headers={"host": name})
                assert reply.status_code == 421, name
                assert reply.json()["code"] == "wrong-host"
                assert "GPQ_ALLOWED_HOSTS" in reply.json()["detail"]
            for path in ("/livez", "/readyz"):
                assert server.http.get(path, headers={"host": name}).status_code == 200


@pytest.mark.parametrize(
    ("hosts", "status"), [("", 200), ("none", 200), ("images.example.org", 421)]
)
def test_keys_protect_a_service_of_any_name_beyond_loopback(
    random_model: Path, tmp_path: Path, hosts: str, status: int
) -> None:
    settings = {"api_keys": "key", "allowed_hosts": hosts}
    with Server(tmp_path, model=random_model, host="0.0.0.0", **settings) as server:
        headers = {"authorization": "Bearer key", "host": "example.org"}
        assert server.http.get("/stats", headers=headers).status_code == status
        assert server.http.get("/stats", headers={"host": "example.org"}).status_code != 200


def test_only_own_pages_and_programs_change_something(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model) as server:
        assert server.index(png(1), ids='["x"]').status_code == 200
        other_port = "http://127.0.0.1:1"
        refused = [
            {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "anything"}, {"origin": "null"}, {"origin": other_port},
            {"origin": server.url.replace("http:", "https:")}, {"origin": "http://evil.example"},
            {"origin": f"{server.url}.evil.example"}, {"origin": "http://["},
            {"sec-fetch-site": "cross-site", "origin": server.url},
        ]  # fmt: skip
        for headers in refused:
            for method, path in (
                ("POST", "/index"),
                ("POST", "/search"),
                ("PATCH", "/images/x"),
                ("DELETE", "/images/x"),
                ("POST", "/jobs/import"),
            ):
                reply = server.http.request(method, path, headers=headers)
                assert reply.status_code == 403, (headers, path)
                assert reply.json()["code"] == "cross-origin"
            site = headers.get("sec-fetch-site")
            reply = server.http.get("/images/x", headers=headers)
            assert reply.status_code == (403 if site else 200), headers
            linked = {**headers, "sec-fetch-mode": "navigate"}
            assert server.http.get("/images/x", headers=linked).status_code == 200
            assert server.http.delete("/images/x", headers=linked).status_code == 403
        accepted: list[dict[str, str]] = [
            {}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"},
            {"origin": server.url}, {"sec-fetch-site": "same-origin", "origin": server.url},
        ]  # fmt: skip
        for headers in accepted:
            found = server.http.post("/search", files={"image": ("a.png", png(1))}, headers=headers)
            assert found.status_code == 200, headers
        assert server.http.delete("/images/x").status_code == 204


def test_every_reply_has_the_headers_that_browsers_heed(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model, max_body_bytes=2000) as server:
        for path in ("/", "/docs", "/openapi.json", "/stats", "/livez", "/images/none", "/none"):
            headers = server.http.get(path).headers
            assert all(name in headers for name in HEADERS), path
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["cross-origin-resource-policy"] == "same-origin"
        too_large = server.http.post("/search", content=b"x" * 3000)
        assert too_large.status_code == 413
        assert all(name in too_large.headers for name in HEADERS)


@pytest.mark.parametrize(
    "hosts", ["https://x.org", "x.org:80", "*", "x.org,,y.org", "x org", "cafe:80", ":"]
)
def test_a_wrong_host_setting_is_explained(hosts: str, tmp_path: Path) -> None:
    server = Server(tmp_path, allowed_hosts=hosts)
    server.start()
    assert server.process is not None and server.process.wait(30) != 0
    assert "GPQ_ALLOWED_HOSTS" in server.printed() and "without a port" in server.printed()
