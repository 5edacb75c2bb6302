import json
from pathlib import Path

from harness.images import png
from harness.server import Server


def test_every_request_has_an_id_in_its_reply_and_its_log_line(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, log_format="json") as server:
        made = server.index(png(1)).headers["X-Request-Id"]
        given = server.http.get("/images/none", headers={"X-Request-Id": "shop-7"})
        assert given.headers["X-Request-Id"] == given.json()["request"] == "shop-7"
        forged = server.http.get("/livez", headers={"X-Request-Id": "a b\\n{}"})
        assert forged.headers["X-Request-Id"] != "a b\\n{}"
        server.http.get("/nothing%0A%22here")
    lines = [json.loads(line) for line in server.printed().splitlines()]
    access = {line["request"]: line for line in lines if line["logger"] == "gpq.access"}
    assert access[made]["status"] == 200 and access[made]["path"] == "/index"
    assert access["shop-7"]["status"] == 404 and access["shop-7"]["level"] == "INFO"
    assert access["shop-7"]["address"] == "127.0.0.1" and access["shop-7"]["ms"] > 0
    assert access[made]["cpu_ms"] > 0 and access[made]["received_bytes"] > len(png(1))
    assert access["shop-7"]["received_bytes"] == 0 and access["shop-7"]["sent_bytes"] > 100
    assert any(line["path"] == "/nothing%0A%22here" for line in access.values())
    assert any("ready" in line["message"] for line in lines)


def test_a_refused_head_has_an_id_in_its_reply_and_its_log_line(
    random_model: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, log_format="json") as server:
        reply = server.http.get("/stats", headers={"A": "x" * 70_000})
        assert reply.status_code == 431
        assert reply.headers["X-Request-Id"] == reply.json()["request"] != ""
    lines = [json.loads(line) for line in server.printed().splitlines()]
    (line,) = [line for line in lines if line["request"] == reply.json()["request"]]
    assert line["status"] == 431 and "larger than" in line["message"]


def test_a_log_of_text_is_the_default(random_model: Path, tmp_path: Path) -> None:
    with Server(tmp_path, model=random_model) as server:
        server.http.get("/livez")
    assert "INFO: gpq.access: 127.0.0.1 GET /livez 200 in " in server.printed()
