"""Tests of dumps restored into other databases, and of backups of a database in use."""

import gzip
import hashlib
import itertools
import json
import re
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import ROOT, commands
from harness.images import png
from harness.models import SHIPPED, make_artifact
from harness.postgres import Postgres, binaries
from harness.server import Server
from service.database import dump
from service.database.migrate import migrate
from service.database.records import Put
from service.database.store import Store
from tests.congruence.conftest import FILES

EXAMPLES = sorted((ROOT / "examples").rglob("*.jpg"))[::6]
IMAGES = 40


def image(n: int) -> bytes:
    return EXAMPLES[n].read_bytes()


def fill(server: Server) -> None:
    """Stores images; replaces one and deletes one, so that seqs and ids differ in order."""
    for n in range(IMAGES):
        fields = {"ids": f'["p{n}"]', "metadata": f'[{{"n":{n},"é":"ü"}}]'}
        assert server.index(image(n), **fields).status_code == 200
    assert server.index(image(45), ids='["p3"]').status_code == 200
    assert server.http.delete("/images/p5").status_code == 204


def answers(server: Server) -> list[object]:
    """Returns all images in order for some queries, and every stored image without its seq."""
    found = [server.search(image(n), k=IMAGES).json()["results"] for n in (0, 7, 45)]
    stored = server.http.get("/images", params={"limit": 1000}).json()["images"]
    return [*found, [{k: v for k, v in row.items() if k != "seq"} for row in stored]]


def new_url(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder}/{kind}-{len(list(folder.iterdir()))}.db"
    url: str = request.getfixturevalue("postgres").create_database()
    return url


@pytest.mark.parametrize(
    ("database_url", "into", "name"),
    [("postgres", "sqlite", "dump.jsonl"), ("sqlite", "postgres", "dump.jsonl.gz")],
    indirect=["database_url"],
)
def test_a_restored_database_answers_the_same(
    database_url: str, tmp_path: Path, into: str, name: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    other = tmp_path / "other"
    make_artifact(other, seed=4, M=6)
    images = {"image_store": tmp_path / "images"}
    place = {"folder": tmp_path, **images}
    with Server(tmp_path, model=SHIPPED, database_url=database_url, **images) as server:
        fill(server)
        commands.service("models", "add", str(other), database_url=database_url, **place)
        commands.service("models", "reindex", database_url=database_url, **place)
        expected = answers(server)
    printed = commands.service("export", name, database_url=database_url, **place)
    assert f"{IMAGES - 1} images to {name}" in printed
    url = new_url(into, tmp_path, request)
    if name == "dump.jsonl":  # restored while a service uses the database
        with Server(tmp_path, model=other, database_url=url, **images) as server:
            commands.service("restore", name, database_url=url, **place)
            for _ in range(100):
                if server.search(image(0)).json().get("results"):
                    break
                time.sleep(0.1)
            assert answers(server) == expected
    else:
        commands.service("restore", name, database_url=url, **place)
    with Server(tmp_path, database_url=url, **images) as server:
        assert answers(server) == expected
        rows = server.http.get("/models").json()["models"]
        assert [(row["active"], row["ready"]) for row in rows] == [(True, True), (False, True)]
        numbers = server.http.get("/stats?checksum=true").json()["checksum"]
        assert numbers["memory"] == numbers["database"]
        assert server.index(image(46), ids='["new"]').status_code == 200
        assert "new" in [hit["id"] for hit in server.search(image(46)).json()["results"]]
    refused = commands.run("restore", name, database_url=url, **place)
    assert refused.returncode == 1 and "holds images already" in refused.stderr


def test_a_restore_remembers_the_previous_model_and_deleted_models(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for id in "np":
        store.models.add(id, FILES)
    store.models.activate("n")
    store.models.delete("p")
    store.images.put([Put("a", {"m": b"\x01", "n": b"\x02"}, "0" * 64, 4, 3, 100, None)])
    path, earlier = tmp_path / "new.jsonl", tmp_path / "earlier.jsonl"
    dump.export(store, path, lambda count: None)
    head, *lines, _ = path.read_bytes().splitlines(keepends=True)
    about = json.loads(head)
    del about["history"]
    content = b"".join([json.dumps(about).encode() + b"\n", *lines])
    last = json.dumps({"sha256": hashlib.sha256(content).hexdigest()}).encode() + b"\n"
    earlier.write_bytes(content + last)
    for kind, file, previous in (
        ("sqlite", path, "m"),
        ("postgres", path, "m"),
        ("sqlite", earlier, None),
    ):
        other = Store(new_url(kind, tmp_path, request))
        migrate(other.database)
        other.models.adopt("x", FILES)
        for id in "ny":  # a restore also forgets this history
            other.models.add(id, FILES)
        other.models.activate("n")
        other.models.activate("x")
        other.models.delete("y")
        assert other.models.previous() == "n"
        dump.restore(other, file, lambda count: None)
        assert [row.id for row in other.models.all()] == ["m", "n"]
        assert other.models.previous() == previous
        known = [id for id in "mnpxy" if other.models.ever_known(id)]
        assert known == (["m", "n", "p"] if file == path else ["m", "n"])
        other.close()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_damaged_dump_restores_nothing(database_url: str, tmp_path: Path) -> None:
    with Server(tmp_path, model=SHIPPED, image_store="none") as server:
        fill(server)
    commands.service("export", "whole.jsonl", folder=tmp_path)
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    entry = json.loads(lines[9])
    other = {**entry, "codes": {"no-such-model": "00"}}
    damaged = {
        "cut": lines[:-1],
        "shorter": [*lines[:9], *lines[10:]],
        "changed": [*lines[:9], re.sub(rb'"width":\d+', b'"width":33', lines[9]), *lines[10:]],
        "of another model": [*lines[:9], json.dumps(other).encode() + b"\n", *lines[10:]],
        "longer": [*lines, lines[9]],
        "of another version": [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]],
        "not a dump": [b"{}\n"],
        "not JSON": [b"\xff\n"],
        "empty": [],
    }
    for name, content in damaged.items():
        (tmp_path / "damaged.jsonl").write_bytes(b"".join(content))
        done = commands.run("restore", "damaged.jsonl", folder=tmp_path, database_url=database_url)
        assert done.returncode == 1 and "damaged.jsonl" in done.stderr, (name, done.stderr)
        assert "Traceback" not in done.stderr
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"".join(lines))[:-100])
    assert "cut.jsonl.gz is damaged" in commands.run(
        "restore", "cut.jsonl.gz", folder=tmp_path, database_url=database_url
    ).stderr  # fmt: skip
    whole = commands.service("restore", "whole.jsonl", folder=tmp_path, database_url=database_url)
    assert f"{IMAGES - 1} images from" in whole
    refused = commands.run("export", "x.zip", folder=tmp_path)
    assert "x.zip: the name must end with .jsonl or .jsonl.gz" in refused.stderr


def test_a_backup_shows_one_moment_while_images_are_stored(tmp_path: Path) -> None:
    images = {"image_store": tmp_path / "images"}
    with Server(tmp_path, model=SHIPPED, **images) as server:
        fill(server)
        done = threading.Event()
        failed: list[str] = []

        def write() -> None:
            for n in itertools.count(1000):
                if done.is_set():
                    return
                reply = server.index(png(n))
                if reply.status_code != 200:
                    failed.append(reply.text)

        writer = threading.Thread(target=write)
        writer.start()
        printed = commands.service("backup", "copy.db", folder=tmp_path)
        done.set()
        writer.join()
        assert failed == []
        assert printed.startswith("copy.db: ")
        assert "copy.db exists" in commands.run("backup", "copy.db", folder=tmp_path).stderr
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        count, codes = (
            copy.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("images", "codes")
        )
    assert count == codes >= IMAGES - 1
    with Server(tmp_path, database_url=f"sqlite:///{tmp_path}/copy.db", **images) as server:
        assert server.http.get("/stats").json()["images"] == count
        assert server.http.get("/images/p7/content").content == image(7)


def test_pg_dump_and_pg_restore_copy_a_catalogue(postgres: Postgres, tmp_path: Path) -> None:
    programs = binaries()
    assert programs is not None
    source, target = postgres.create_database(), postgres.create_database()
    images = {"image_store": tmp_path / "images"}
    with Server(tmp_path, model=SHIPPED, database_url=source, **images) as server:
        fill(server)
        expected = answers(server)
        refused = commands.run("backup", "copy.db", folder=tmp_path, database_url=source)
        assert "pg_dump -Fc" in refused.stderr
        plain = [url.replace("postgresql+psycopg", "postgresql") for url in (source, target)]
        dump = tmp_path / "gpq.dump"
        subprocess.run([programs / "pg_dump", "-Fc", "-f", dump, plain[0]], check=True)
    subprocess.run([programs / "pg_restore", "-d", plain[1], dump], check=True)
    with Server(tmp_path, model=SHIPPED, database_url=target, **images) as server:
        assert answers(server) == expected
        assert server.index(image(46), ids='["new"]').status_code == 200
        assert "new" in [hit["id"] for hit in server.search(image(46)).json()["results"]]


@pytest.mark.parametrize(
    "command", [("backup", "b.db"), ("export", "e.jsonl"), ("models", "list"), ("jobs", "list")]
)
def test_commands_report_a_missing_database_and_do_not_create_it(
    command: tuple[str, str], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/none/typo.db"
    done = commands.run(*command, folder=tmp_path, database_url=url)
    assert done.returncode == 1
    assert "GPQ_DATABASE_URL" in done.stderr and f"{tmp_path}/none/typo.db" in done.stderr
    assert [*tmp_path.iterdir()] == []
