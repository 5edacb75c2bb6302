"""Tests of keys, unusable settings, admission, statistics and documentation."""

import http.client
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpq import scan
from harness import ROOT
from harness.images import png
from harness.server import Server


def test_every_route_except_health_requires_a_key(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model, api_keys="first-key, second-key") as server:
        routes = [("POST", "/index"), ("POST", "/search"), ("GET", "/images/x")]
        routes += [("DELETE", "/images/x"), ("GET", "/model"), ("GET", "/stats")]
        for method, path in routes:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}):
                reply = server.http.request(method, path, headers=headers)
                assert reply.status_code == 401, path
                assert reply.json()["code"] == "unauthorized"
                assert reply.headers["www-authenticate"] == "Bearer"
        for path in ("/livez", "/readyz"):
            assert server.http.get(path).status_code == 200
        server.http.headers["authorization"] = "Bearer second-key"
        assert server.index(png(1)).status_code == 200
        assert server.search(png(1)).status_code == 200
        assert "first-key" not in server.printed()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"GPQ_HOST": "0.0.0.0"}, "GPQ_API_KEYS"),
        ({"GPQ_MODEL": "/nowhere"}, "/nowhere/config.json: there is no finished model"),
        (
            {"GPQ_MODEL": "models/none"},
            f"and none in {ROOT}/models/none; name the folder of a model",
        ),
        ({"GPQ_PORT": "eighty"}, "GPQ_PORT"),
        ({"GPQ_API_KEYS": "none"}, "GPQ_API_KEYS: Value error, 'none' is a key"),
        ({"GPQ_API_KEYS": "schl\u00fcssel"}, "an Authorization header cannot carry"),
        ({"GPQ_API_KEYS": "two words"}, "an Authorization header cannot carry"),
        ({"GPQ_SCAN": "quantum"}, "GPQ_SCAN"),
        ({"GPQ_SCAN": "cuda"}, "the cuda scan engine is unavailable: there is no CUDA device"),
        ({"GPQ_DATABASE_URL": "mysql://x/y"}, "mysql is not supported; use sqlite or postgresql"),
        ({"GPQ_DATABASE_URL": "notaurl"}, "Could not parse SQLAlchemy URL"),
        ({"GPQ_IMAGE_STORE": "warp://x"}, "GPQ_IMAGE_STORE=warp://x"),
    ],
)
def test_a_service_with_unusable_settings_ends_with_a_clear_error(
    settings: dict[str, str], message: str, random_model: Path, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GPQ_MODEL": str(random_model),
        **settings,
    }
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_early_reply_keeps_the_connection_of_a_short_body(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, api_keys="key") as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
        for size, closed in ((1000, False), (1000, False), (2**20, True)):
            connection.request("POST", "/search", body=bytes(size))
            reply = connection.getresponse()
            assert reply.status == 401
            assert reply.getheader("connection") == ("close" if closed else None)
            reply.read()
            assert (connection.sock is None) == closed
        connection.close()


def test_requests_over_the_limit_get_429(random_model: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Server(tmp_path, model=random_model, max_waiting=1) as server:
        images = [png(seed) for seed in range(100)]
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda n: server.index(*images[n::8]), range(8)))
        refused = [r for r in replies if r.status_code == 429]
        assert {r.status_code for r in replies} == {200, 429}
        assert all(r.headers["retry-after"] == "1" and r.json()["code"] == "busy" for r in refused)


def test_model_stats_documentation_and_page_describe_the_service(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model) as server:
        model = server.http.get("/model").json()
        assert model["bits"] == 48
        assert model["classes"] == ["a", "b"]
        assert len(model["id"]) == 64
        server.index(png(1), png(2))
        server.index(png(1), ids='["again"]')
        stats = server.http.get("/stats").json()
        assert stats["images"] == 3
        assert stats["unique_codes"] == 2
        assert stats["largest_tie"] == 2
        assert (stats["engine"], stats["engine_reason"]) == scan.choose("auto")
        feed = stats["feed"]
        assert (feed["applied"], feed["head"], feed["lag_s"]) == (3, 3, 0)
        assert len(feed["replicas"]) == 1
        page = server.http.get("/docs")
        assert page.status_code == 200
        assert "https://" not in page.text
        paths = server.http.get("/openapi.json").json()["paths"]
        assert {"/index", "/search", "/images/{id}", "/model", "/stats"} <= set(paths)
        assert "multipart/form-data" in paths["/index"]["post"]["requestBody"]["content"]
        body = paths["/search"]["post"]["requestBody"]["content"]
        assert set(body) == {"multipart/form-data", "application/json"}
        page = server.http.get("/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
