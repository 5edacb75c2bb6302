"""Tests of imports from a folder, a manifest or an archive, by command and over HTTP."""

import hashlib
import json
import signal
import tarfile
import time
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from PIL import Image

from harness import commands
from harness.images import png, tree
from harness.server import Server
from service.database import schema
from service.database.store import Store
from tests import waiting
from tests.congruence.conftest import FILES

IMAGES = 200
until = partial(waiting.until, seconds=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with IMAGES images in two folders, a damaged image, and a text file."""
    root = tmp_path / "photos"
    tree(root, *(f"{'shoes' if n % 2 else 'bags'}/{n:03}.png" for n in range(IMAGES)))
    (root / "shoes" / "broken.png").write_bytes(png(1)[:200])
    (root / "notes.txt").write_text("not an image")
    return root


def ids(server: Server) -> set[str]:
    listed = server.http.get("/images", params={"limit": 1000}).json()["images"]
    return {image["id"] for image in listed}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_an_imported_folder_is_found_and_a_second_import_stores_only_changes(
    random_model: Path, database_url: str, tmp_path: Path, folder: Path
) -> None:
    settings = {"database_url": database_url, "image_store": tmp_path / "images"}
    with Server(tmp_path, model=random_model, **settings) as server:
        first = commands.run("import", str(folder), folder=tmp_path, **settings)
        assert first.returncode == 1
        assert f"done: {IMAGES} of {IMAGES + 2} images" in first.stdout
        assert "shoes/broken.png: the PNG file cannot be decoded" in first.stderr
        assert "notes.txt: " in first.stderr
        until(lambda: server.http.get("/stats").json()["images"] == IMAGES)
        found = server.search(png(7), k=IMAGES).json()["results"]
        metadata = {hit["id"]: hit["metadata"] for hit in found}
        assert len(metadata) == IMAGES
        assert metadata["shoes:007.png"] == {"path": "shoes/007.png"}
        assert server.http.get("/images/shoes:007.png/content").content == png(7)

        before = server.http.get("/stats").json()["feed"]["head"]
        (folder / "shoes" / "007.png").write_bytes(png(900))
        (folder / "notes.txt").unlink()
        (folder / "shoes" / "broken.png").unlink()
        again = commands.service("import", str(folder), folder=tmp_path, **settings)
        assert f"done: {IMAGES} of {IMAGES} images" in again
        assert server.http.get("/stats").json()["feed"]["head"] == before + 1
        assert server.http.get("/images/shoes:007.png/content").content == png(900)
        # An import restores a lost original and replaces a damaged one.
        (path,) = (tmp_path / "images").glob(f"*/{hashlib.sha256(png(9)).hexdigest()}")
        path.unlink()
        commands.service("import", str(folder), folder=tmp_path, **settings)
        assert path.read_bytes() == png(9)
        path.write_bytes(b"damaged")
        again = commands.service("import", str(folder), folder=tmp_path, **settings)
        assert path.read_bytes() == png(9)
        assert f"; in this run {IMAGES} unchanged" in again
        jobs = server.http.get("/jobs").json()["jobs"][2:]
        assert [(job["number"], job["state"], job["failed"]) for job in jobs] == [
            (2, "done", 0), (1, "done", 2),
        ]  # fmt: skip
        listed = commands.service("jobs", "list", folder=tmp_path, **settings)
        assert f"2  done       {IMAGES} of {IMAGES}  import {folder}" in listed


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_import_creates_a_database_that_a_service_then_serves(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    settings = {"database_url": database_url, "image_store": tmp_path / "images"}
    tree(tmp_path / "in", "a.png", "b.png")
    manifest = tmp_path / "in" / "m.jsonl"
    rows = [{"path": "a.png", "id": "one", "price": 3}, {"path": "b.png"}, {"path": "c.png"}]
    manifest.write_text("\n".join(json.dumps(row) for row in rows))
    archive = tmp_path / "more.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "in" / "a.png", "x/y.png")
    done = commands.run("import", str(manifest), folder=tmp_path, model=random_model, **settings)
    created = f"creating the database {tmp_path}/gpq.db\n"
    assert (done.returncode, done.stderr) == (1, created + "c.png: there is no such file\n")
    assert "images; in this run 2 created" in done.stdout
    commands.service("import", str(archive), folder=tmp_path, model=random_model, **settings)
    Image.new("RGB", (40, 40)).save(tmp_path / "in" / "a.png")
    again = commands.run("import", str(manifest), folder=tmp_path, model=random_model, **settings)
    assert "images; in this run 1 replaced, 1 unchanged" in again.stdout
    with Server(tmp_path, model=random_model, **settings) as server:
        assert ids(server) == {"one", "b.png", "x:y.png"}
        one = server.http.get("/images/one").json()
        assert one["metadata"] == {"path": "a.png", "price": 3}
        assert len([*(tmp_path / "images").glob("database-*.txt")]) == 1


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_import_fails_if_the_database_lacks_the_files_of_a_model(
    random_model: Path, database_url: str, tmp_path: Path, active: bool
) -> None:
    """A database of an earlier version lacks them until a service starts with it."""
    tree(tmp_path / "in", "a.png")
    settings = {"database_url": database_url, "image_store": "none", "model": random_model}
    commands.service("import", str(tmp_path / "in"), folder=tmp_path, **settings)
    store = Store(database_url)
    (model,) = (row.id for row in store.models.all())
    if active:
        with store.database.transaction() as connection:
            connection.execute(sa.delete(schema.artifacts))
    else:
        model = "without-files"
        store.models.add(model, FILES)
        with store.database.transaction() as connection:
            mine = schema.artifacts.c.model == store.models.get(model).number
            connection.execute(sa.delete(schema.artifacts).where(mine))
    process = commands.start("import", str(tmp_path / "in"), folder=tmp_path, **settings)
    try:
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 1
    assert f"codes of model {model}, but not its files: " in errors
    advice = "a service over it once, with GPQ_MODEL" if active else "models prune"
    assert advice in errors
    assert store.jobs.page(1)[0].state == "failed"
    store.close()
    if active:
        with Server(tmp_path, **settings):
            pass
    else:
        commands.service("models", "prune", folder=tmp_path, **settings)
    commands.service("import", str(tmp_path / "in"), folder=tmp_path, **settings)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_the_last_entry_wins_if_a_manifest_repeats_an_id(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    settings = {"database_url": database_url, "image_store": tmp_path / "images"}
    tree(tmp_path / "in", *(f"{n}.png" for n in range(200)))
    manifest = tmp_path / "in" / "m.jsonl"
    twice = [{"path": "0.png", "id": "a"}, {"path": "1.png", "id": "a"}]
    rows = [*twice, *({"path": f"{n}.png"} for n in range(199)), {"path": "2.png", "id": "a"}]
    odd = {"path": "../\udc80\0"}
    manifest.write_text("\n".join(json.dumps(row) for row in [*rows, odd]))
    with Server(tmp_path, model=random_model, **settings) as server:
        for number in (1, 2):
            commands.run("import", str(manifest), folder=tmp_path, **settings)
            assert server.http.get("/images/a/content").content == png(2)
            job = server.http.get(f"/jobs/{number}").json()
            assert (job["state"], job["failed"]) == ("done", 1)
            failures = server.http.get(f"/jobs/{number}/failures").json()["failures"]
            assert [failure["name"] for failure in failures] == ["../?\ufffd"]
        for path in ("/jobs/99999999999", f"/jobs/1/failures?cursor={10**20}"):
            assert server.http.get(path).status_code == 422


@pytest.mark.parametrize(
    ("database_url", "ended_by"),
    [("postgres", signal.SIGTERM), ("sqlite", signal.SIGKILL)],
    indirect=["database_url"],
)
def test_an_interrupted_import_continues_when_it_is_run_again(
    random_model: Path, database_url: str, tmp_path: Path, folder: Path, ended_by: signal.Signals
) -> None:
    (folder / "notes.txt").unlink()
    (folder / "shoes" / "broken.png").unlink()
    tree(folder, *(f"tail/{n:04}.png" for n in range(1500)))
    total = IMAGES + 1500
    settings = {"database_url": database_url, "image_store": tmp_path / "images"}
    with Server(tmp_path, model=random_model, **settings) as server:
        first = commands.start("import", str(folder), folder=tmp_path, **settings)
        until(lambda: server.http.get("/stats").json()["images"] >= 100)
        first.send_signal(ended_by)
        first.communicate()
        stored = server.http.get("/stats").json()["images"]
        assert 100 <= stored < total
        job = server.http.get("/jobs/1").json()
        if ended_by is signal.SIGTERM:
            assert (job["state"], job["done"]) == ("stopped", stored)
        else:
            assert (
                "already does this"
                in commands.run("import", str(folder), folder=tmp_path, **settings).stderr
            )
            until(lambda: server.http.get("/jobs/1").json()["state"] == "stopped")
        assert commands.service("import", str(folder), folder=tmp_path, **settings)
        job = server.http.get("/jobs/1").json()
        assert (job["state"], job["done"], job["total"]) == ("done", total, total)
        until(lambda: server.http.get("/stats").json()["images"] == total)
        assert server.http.get("/stats").json()["feed"]["head"] == total


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_imports_over_http_stay_within_their_folder_and_can_be_cancelled(
    random_model: Path, database_url: str, tmp_path: Path, folder: Path
) -> None:
    tree(tmp_path, "outside/a.png")
    (folder / "away").symlink_to(tmp_path / "outside")
    tree(folder, *(f"many/{n:04}.png" for n in range(10_000)))
    settings = {"database_url": database_url, "image_store": tmp_path / "images"}
    with Server(tmp_path, model=random_model, import_folder=folder, **settings) as server:
        for source in (
            "../outside",
            str(tmp_path / "outside"),
            "away",
            "gone",
            "a\0b",
            "notes.txt",
        ):
            refused = server.http.post("/jobs/import", json={"source": source})
            assert refused.status_code == 422, (source, refused.text)
        assert server.http.post("/jobs/import", json={}).status_code == 422
        asked = server.http.post("/jobs/import", json={"source": "shoes"})
        assert (asked.status_code, asked.headers["Location"]) == (202, "/jobs/1")
        until(lambda: server.http.get("/jobs/1").json()["state"] == "done")
        job = server.http.get("/jobs/1").json()
        assert (job["done"], job["failed"], job["total"]) == (101, 1, 101)
        assert job["detail"] == "100 created"
        failures = server.http.get("/jobs/1/failures").json()
        assert failures["next_cursor"] is None
        assert [failure["name"] for failure in failures["failures"]] == ["broken.png"]
        printed = commands.service("jobs", "failures", "1", folder=tmp_path, **settings)
        assert printed.startswith("broken.png: ") and printed.count("\n") == 1
        assert commands.run("jobs", "failures", "9", folder=tmp_path, **settings).returncode != 0
        assert server.http.delete("/jobs/1").status_code == 409

        assert server.http.post("/jobs/import", json={"source": "many"}).status_code == 202
        again = server.http.post("/jobs/import", json={"source": "many"})
        assert again.status_code == 409 and "job 2 already does this" in again.json()["detail"]
        until(lambda: server.http.get("/jobs/2").json()["done"] > 0)
        running = server.http.get("/jobs/2").json()
        assert running["state"] == "running" and running["seconds_left"] > 0
        assert server.http.delete("/jobs/2").json()["state"] == "cancelled"
        counts = [0]  # entries in progress are still stored, then no more

        def at_rest() -> bool:
            time.sleep(2)
            counts.append(server.http.get("/stats").json()["images"])
            return counts[-1] == counts[-2]

        until(at_rest)
        assert counts[-1] < 10_100
        assert server.http.get("/jobs/3").status_code == 404
    with Server(tmp_path, model=random_model, **settings) as server:
        refused = server.http.post("/jobs/import", json={"source": "shoes"})
        assert refused.status_code == 403 and "GPQ_IMPORT_FOLDER" in refused.json()["detail"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_the_next_service_continues_the_job_of_one_that_stops(
    random_model: Path, database_url: str, tmp_path: Path, folder: Path
) -> None:
    tree(folder, *(f"many/{n:04}.png" for n in range(4000)))
    settings = {"database_url": database_url, "image_store": tmp_path / "images"}
    service = Server(tmp_path, model=random_model, import_folder=folder, **settings)
    with service as server:
        server.http.post("/jobs/import", json={"source": "many"})
        until(lambda: server.http.get("/jobs/1").json()["done"] > 0)
    with service as server:
        job = server.http.get("/jobs/1").json()
        assert job["state"] in ("waiting", "running") and 0 < job["done"] < 4000
        until(lambda: server.http.get("/jobs/1").json()["state"] == "done")
        assert server.http.get("/jobs/1").json()["done"] == 4000
        assert server.http.get("/stats").json()["images"] == 4000


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_an_import_waits_for_a_service_whose_folder_holds_its_source(
    random_model: Path, database_url: str, tmp_path: Path, folder: Path
) -> None:
    settings = {"database_url": database_url, "image_store": tmp_path / "images"}
    other = tmp_path / "other"
    other.mkdir()
    elsewhere = tmp_path / "mounted"
    elsewhere.symlink_to(folder)
    without = Server(tmp_path, model=random_model, **settings)
    wrong = Server(tmp_path, model=random_model, import_folder=other, **settings)
    right = Server(tmp_path, model=random_model, import_folder=elsewhere, **settings)
    with without as server, wrong:
        store = Store(database_url)
        assert store.jobs.request("import", "shoes", by_service=True) == 1
        store.close()
        server.http.post("/jobs/reindex").raise_for_status()  # does not wait for the first job
        until(lambda: server.http.get("/jobs/2").json()["state"] == "done")
        until(lambda: "GPQ_IMPORT_FOLDER" in server.http.get("/jobs/1").json()["detail"])
        time.sleep(2)
        job = server.http.get("/jobs/1").json()
        assert (job["state"], job["done"]) == ("waiting", 0)
        assert job["detail"].startswith("waits for a service whose GPQ_IMPORT_FOLDER")
        assert "waits for a service" in commands.service(
            "jobs", "list", folder=tmp_path, **settings
        )
        with right:
            until(lambda: right.http.get("/jobs/1").json()["state"] == "done")
            job = server.http.get("/jobs/1").json()
            assert (job["done"], job["failed"], job["source"]) == (101, 1, "shoes")
            assert job["detail"] == "100 created"
            asked = right.http.post("/jobs/import", json={"source": str(folder / "bags")})
            assert asked.json()["source"] == "bags"
            until(lambda: server.http.get("/jobs/3").json()["state"] == "done")
