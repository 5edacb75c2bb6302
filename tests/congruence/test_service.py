"""The service over either database."""

import json
from pathlib import Path

from tests.images import png
from tests.server import Server


def test_index_search_delete_restart(random_model: Path, database_url: str, tmp_path: Path) -> None:
    settings = {"model": random_model, "database_url": database_url}
    with Server(tmp_path, **settings) as server:
        body = server.index(*(png(seed) for seed in range(30)), ids=json.dumps(
            [f"p{seed}" for seed in range(30)]
        )).json()  # fmt: skip
        assert body["errors"] is False
        assert server.index(png(99), ids='["p3"]').json()["items"][0]["status"] == "replaced"
        assert server.http.delete("/images/p4").status_code == 204
        before = server.search(png(1), k=1000).json()["results"]
        assert len(before) == 29
    with Server(tmp_path, **settings) as server:
        assert server.search(png(1), k=1000).json()["results"] == before


def test_another_process_follows(random_model: Path, database_url: str, tmp_path: Path) -> None:
    import time

    settings = {"model": random_model, "database_url": database_url, "image_store": tmp_path / "o"}
    with Server(tmp_path, **settings) as writer, Server(tmp_path, **settings) as reader:
        writer.index(png(1), ids='["a"]')
        deadline = time.monotonic() + 30
        while not reader.search(png(1)).json()["results"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        writer.http.delete("/images/a")
        while reader.search(png(1)).json()["results"]:
            assert time.monotonic() < deadline
