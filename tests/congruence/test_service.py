"""Tests of the service with each kind of database."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness import ROOT
from harness.images import png
from harness.models import make_artifact
from harness.postgres import Postgres
from harness.server import Server
from service.database import engine
from service.database.migrate import migrate
from service.database.store import Store


def test_a_restart_keeps_stored_replaced_and_deleted_images(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
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


def test_another_process_follows_puts_and_deletes(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
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


def test_two_models_never_mix_in_one_database(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    other = tmp_path / "other-model"
    make_artifact(other, seed=9, M=6)
    settings = {"database_url": database_url, "image_store": "none"}
    mine = Server(tmp_path, model=random_model, **settings)
    with mine as first, Server(tmp_path, model=other, **settings) as second:
        # The last service to start with an empty database decides its model.
        model = second.http.get("/model").json()["id"]
        assert second.index(png(1)).status_code == 200
        deadline = time.monotonic() + 30
        while first.index(png(2)).status_code == 503:  # until it has loaded the other model
            assert time.monotonic() < deadline
            time.sleep(0.05)
        reply = first.search(png(1))
        assert reply.json()["model"] == model
        assert reply.json()["results"] == second.search(png(1)).json()["results"]
        assert second.http.get("/stats").json()["images"] == 2
    with mine:
        ready = mine.http.get("/readyz")
        assert ready.status_code == 503
        assert "the stored codes are of model" in ready.json()["detail"]
        assert mine.search(png(1)).status_code == 503


def test_ids_that_no_database_can_store_are_not_found(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    with Server(tmp_path, model=random_model, database_url=database_url) as server:
        for id in ("%00", "a%00b", "%ED%A0%80", "x" * 1000):
            assert server.http.get(f"/images/{id}").status_code == 404
            assert server.http.delete(f"/images/{id}").status_code == 404


def test_health_answers_while_writers_wait(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    """Another program holds the write lock; health checks and readers do not wait for it."""
    with Server(tmp_path, model=random_model, database_url=database_url) as server:
        server.index(png(0), ids='["first"]')
        store = Store(database_url)
        with ThreadPoolExecutor(45) as pool:
            with store.database.transaction():
                puts = [pool.submit(server.index, png(seed)) for seed in range(1, 46)]
                time.sleep(1)
                started = time.monotonic()
                assert server.http.get("/readyz").status_code == 200
                assert server.http.get("/stats").json()["images"] == 1
                assert time.monotonic() - started < 5
            assert {put.result().status_code for put in puts} == {200}
        store.close()
        assert server.http.get("/stats").json()["images"] == 46


def test_migrate_downgrades_the_schema_and_the_service_upgrades_it_again(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    def run_migrate(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GPQ_DATABASE_URL": database_url}
        command = [sys.executable, "-m", "service", "migrate", *arguments]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    settings = {"model": random_model, "database_url": database_url}
    with Server(tmp_path, **settings) as server:
        server.index(png(1), ids='["a"]')
    assert "revision 0001" in run_migrate("0001").stdout
    with Server(tmp_path, **settings) as server:
        assert [h["id"] for h in server.search(png(1)).json()["results"]] == ["a"]
    wrong = run_migrate("9999")
    assert wrong.returncode == 1
    assert "9999" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_service_reports_a_newer_schema_and_leaves_it_alone(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    store = Store(database_url)
    migrate(store.database)
    with store.database.transaction() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    server = Server(tmp_path, model=random_model, database_url=database_url)
    server.start()
    server.wait_until_not_ready("9999")
    assert server.stop() == 0


def test_a_process_that_stalls_while_it_holds_the_write_lock_loses_it(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "DATABASE_STALL_SECONDS", 1)
    url = postgres.create_database()
    stalled, other = Store(url), Store(url)
    migrate(other.database)
    with pytest.raises(sa.exc.DBAPIError), stalled.database.transaction() as connection:
        assert other.models.adopt("m", {"config.json": b"{}"}) == "m"
        connection.execute(sa.select(1))
    stalled.close()
    other.close()
