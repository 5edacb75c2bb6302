"""Tests of keys with scopes, limits of rate and the audit log, on a real server."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harness import commands
from harness.images import png
from harness.server import Server
from service.app import create_app
from service.settings import Settings
from tests.conftest import new_database
from tests.waiting import until

FILES = {"images": ("x.png", png(0))}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keys")
    url = new_database(request, folder)
    settings = {"model": random_model, "database_url": url, "api_keys": "root"}
    with Server(folder, **settings, audit_log=folder / "audit.jsonl") as running:
        yield running


opened: list[httpx.Client] = []


@pytest.fixture(autouse=True)
def closes() -> Iterator[None]:
    """Closes the clients of a test."""
    yield
    while opened:
        opened.pop().close()


def client(server: Server, secret: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {secret}"}
    opened.append(httpx.Client(base_url=server.url, headers=headers, timeout=60))
    return opened[-1]


def new_key(server: Server, *scopes: str, **more: object) -> tuple[int, httpx.Client]:
    body = {"name": "test", "scopes": list(scopes), **more}
    reply = client(server, "root").post("/keys", json=body)
    assert reply.status_code == 201, reply.text
    made = reply.json()
    assert made["key"].startswith("gpq_")
    return made["number"], client(server, made["key"])


REQUESTS = {
    "search": ("POST", "/search", {"files": {"image": ("x.png", png(0))}}),
    "store": ("POST", "/index", {"files": FILES, "data": {"ids": '["a"]'}}),
    "describe": ("GET", "/images/a", {}),
    "list": ("GET", "/images", {}),
    "change": ("PATCH", "/images/a", {"json": {"metadata": {"n": 1}}}),
    "delete": ("DELETE", "/images/a", {}),
    "stats": ("GET", "/stats", {}),
    "models": ("GET", "/models", {}),
    "jobs": ("GET", "/jobs", {}),
    "reindex": ("POST", "/jobs/reindex", {}),
    "keys": ("GET", "/keys", {}),
    "new key": ("POST", "/keys", {"json": {"name": "x", "scopes": ["admin"]}}),
}
READS = {"describe", "list", "stats"}
ALLOWED = {
    "search": READS | {"search"},
    "index": READS | {"store", "change", "delete"},
    "admin": set(REQUESTS),
}


@pytest.mark.parametrize("scope", ALLOWED)
def test_a_key_opens_what_its_scope_says_and_nothing_else(scope: str, server: Server) -> None:
    _, http = new_key(server, scope)
    for name, (method, path, more) in REQUESTS.items():
        client(server, "root").post("/index", files=FILES, data={"ids": '["a"]'})
        status = http.request(method, path, **more).status_code
        if name in ALLOWED[scope]:
            assert status in (200, 201, 202, 204), (name, status)
        else:
            assert status == 403, (name, status)
            reply = http.request(method, path, **more).json()
            assert reply["code"] == "scope" and "scope" in reply["detail"]


def test_a_prefix_is_a_border(server: Server) -> None:
    root = client(server, "root")
    root.post("/index", files=FILES, data={"ids": '["other"]'})
    _, http = new_key(server, "index", prefix="mine-")
    assert http.post("/index", files=FILES, data={"ids": '["mine-1"]'}).status_code == 200
    for ids in ('["other"]', "[null]", None):
        reply = http.post("/index", files=FILES, data={"ids": ids} if ids else {})
        assert (reply.status_code, reply.json()["code"]) == (403, "prefix")
    assert http.get("/images/mine-1").status_code == 200
    for method, path in (
        ("GET", "/images/other"), ("GET", "/images/other/content"), ("DELETE", "/images/other"),
        ("PATCH", "/images/other"),
    ):  # fmt: skip
        reply = http.request(method, path, json={} if method == "PATCH" else None)
        assert (reply.status_code, reply.json()["code"]) == (403, "prefix"), (method, path)
    assert root.get("/images/other").status_code == 200
    _, reader = new_key(server, "search", prefix="mine-")
    for caller in (reader, http):
        assert [image["id"] for image in caller.get("/images").json()["images"]] == ["mine-1"]
    found = reader.post("/search", files={"image": FILES["images"]}).json()["results"]
    assert [hit["id"] for hit in found] == ["mine-1"]
    batch = reader.post("/search/batch", files=FILES, data={"k": 1000}).json()["queries"]
    assert [hit["id"] for hit in batch[0]["results"]] == ["mine-1"]
    assert reader.post("/search", json={"id": "mine-1"}).json()["results"][0]["id"] == "mine-1"
    reply = reader.post("/search", json={"id": "other"})
    assert (reply.status_code, reply.json()["code"]) == (403, "prefix")


def test_a_revoked_key_is_refused_at_once(server: Server) -> None:
    number, http = new_key(server, "search")
    assert http.get("/images").status_code == 200
    revoked = client(server, "root").delete(f"/keys/{number}")
    assert revoked.status_code == 200 and revoked.json()["revoked"]
    assert http.get("/images").status_code == 401
    assert client(server, "root").delete("/keys/99999").status_code == 404


def test_keys_are_listed_without_their_secrets(server: Server) -> None:
    number, http = new_key(server, "search", expires="2030-01-01T00:00:00Z")
    secret = http.headers["Authorization"].split()[1]
    reply = client(server, "root").get("/keys")
    assert secret not in reply.text
    (found,) = [key for key in reply.json()["keys"] if key["number"] == number]
    assert found["expires"] == "2030-01-01T00:00:00Z" and found["scopes"] == ["search"]


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": "x"}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["root"]},
        {"name": "x", "scopes": ["admin"], "prefix": "a"}, {"name": "", "scopes": ["search"]},
        {"name": "x", "scopes": ["search"], "expires": "2001-01-01T00:00:00Z"},
        {"name": "x", "scopes": ["search"], "expires": "soon"},
        {"name": "x", "scopes": ["search"], "expires": "9999-12-31T23:59:59-14:00"},
        {"name": "x", "scopes": ["search"], "more": 1},
    ],
)  # fmt: skip
def test_keys_that_make_no_sense_are_refused(body: dict, server: Server) -> None:
    assert client(server, "root").post("/keys", json=body).status_code == 422


def test_the_command_line_manages_the_same_keys(server: Server, random_model: Path) -> None:
    settings = {**server.settings, "audit_log": server.folder / "audit.jsonl"}
    secret = commands.service(
        "keys", "create", "shop", "--scope", "search", "--days", "9", folder=server.folder,
        **settings,
    ).strip()  # fmt: skip
    http, deadline = client(server, secret), time.monotonic() + 5
    while http.get("/images").status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(1)  # wrong keys are limited
    listed = commands.service("keys", "list", folder=server.folder, **settings)
    (line,) = [line for line in listed.splitlines() if "shop" in line]
    number = line.split()[0]
    commands.service("keys", "revoke", number, folder=server.folder, **settings)
    deadline = time.monotonic() + 5
    while (status := http.get("/images").status_code) == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert status == 401
    failed = commands.run("keys", "revoke", "99999", folder=server.folder, **settings)
    assert failed.returncode == 1 and "no key 99999" in failed.stderr


def test_the_audit_log_tells_who_did_what(server: Server) -> None:
    _, http = new_key(server, "index")
    http.post("/index", files=FILES, data={"ids": '["audited"]'})
    http.delete("/images/audited")
    http.post("/keys", json={"name": "x", "scopes": ["admin"]})
    http.get("/images")
    path = server.folder / "audit.jsonl"

    def lines() -> dict[str, dict]:
        """Returns the last line of each action; they may come in another order."""
        read = [json.loads(line) for line in path.read_text().splitlines()]
        return {line["action"]: line for line in read}

    until(lambda: lines().get("POST /keys", {}).get("status") == 403)
    until(lambda: lines().get("DELETE /images/{id}", {}).get("path") == "/images/audited")
    stored, deleted = lines()["POST /index"], lines()["DELETE /images/{id}"]
    refused = lines()["POST /keys"]
    assert stored["action"] == "POST /index" and stored["ids"] == ["audited"]
    assert stored["who"].startswith("test (") and stored["status"] == 200
    assert deleted["path"] == "/images/audited" and deleted["action"] == "DELETE /images/{id}"
    assert (refused["action"], refused["status"]) == ("POST /keys", 403)
    assert "gpq_" not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_the_first_key_ends_anonymous_access(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model) as server:
        assert server.http.get("/images").status_code == 200
        reply = server.http.post("/keys", json={"name": "x", "scopes": ["search"]})
        assert reply.status_code == 409 and "scope admin first" in reply.json()["detail"]
        made = server.http.post("/keys", json={"name": "x", "scopes": ["admin"]}).json()
        assert server.http.get("/images").status_code == 401
        assert server.http.get("/livez").status_code == 200
        http = client(server, made["key"])
        assert http.get("/images").status_code == 200
        last = http.delete(f"/keys/{made['number']}")
        assert last.status_code == 409 and "last key" in last.json()["detail"]


def test_wrong_keys_are_limited_and_right_ones_go_on(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model, api_keys="right,other") as server:
        right = client(server, "right")
        assert right.get("/images").status_code == 200
        old = client(server, "old")  # the same wrong key again and again blocks nobody
        assert [old.get("/images").status_code for _ in range(15)] == [401] * 15
        statuses = [client(server, f"wrong{n}").get("/images").status_code for n in range(15)]
        assert statuses[:9] == [401] * 9 and statuses[-1] == 429
        refused = client(server, "other").get("/images")  # a key that it might have guessed
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
        assert refused.json()["code"] == "too-many-wrong-keys"
        assert right.get("/images").status_code == 200


def test_a_rate_has_a_limit_and_says_so(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model, api_keys="a,b", rate_limit=5) as server:
        first, second = client(server, "a"), client(server, "b")
        replies = [first.get("/images") for _ in range(12)]
        assert replies[0].headers["RateLimit-Policy"] == '"default";q=5;w=1'
        searched = first.post("/search", files={"image": ("x.png", png(0))})
        assert "RateLimit" in searched.headers
        assert replies[0].headers["RateLimit"].startswith('"default";r=')
        refused = [reply for reply in replies if reply.status_code == 429]
        assert refused and refused[0].json()["code"] == "too-many-requests"
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert second.get("/images").status_code == 200
        time.sleep(2)
        assert first.get("/images").status_code == 200


def test_every_route_but_the_public_ones_asks_for_a_key(random_model: Path, tmp_path: Path) -> None:
    app = create_app(
        Settings(model=random_model, database_url=f"sqlite:///{tmp_path}/a.db", image_store="none")
    )
    spec = app.openapi()["paths"]
    asked = {path for path, of in spec.items() if all("security" in each for each in of.values())}
    assert set(spec) - asked == {"/livez", "/readyz"}
    assert len(asked) > 15


def test_a_client_does_not_choose_its_address(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model, rate_limit=3) as server:
        headers = [{"X-Forwarded-For": f"not an address {n}\n"[:-1]} for n in range(12)]
        replies = [server.http.get("/images", headers=each) for each in headers]
        assert 429 in [reply.status_code for reply in replies]
