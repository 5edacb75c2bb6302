"""Tests of imports that keep the catalogue equal to their source, on both databases."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest

from harness import commands
from harness.images import png, tree
from harness.server import Server
from service.database.store import Store
from tests import waiting
from tests.s3 import S3

until = partial(waiting.until, seconds=60)
OLD = time.time() - 3600


@pytest.fixture
def settings(random_model: Path, database_url: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "model": random_model,
        "database_url": database_url,
        "image_store": tmp_path / "originals",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of twelve images that have not changed for an hour."""
    root = tmp_path / "photos"
    tree(root, *(f"{'a' if n % 2 else 'b'}/{n}.png" for n in range(12)))
    for path in root.rglob("*.png"):
        os.utime(path, (OLD, OLD))
    return root


def mirror(folder: Path | str, tmp_path: Path, settings: dict[str, Any], *more: str):
    return commands.run("import", str(folder), "--mirror", *more, folder=tmp_path, **settings)


def ids(url: str) -> dict[str, str]:
    """Returns the sha256 of all stored images by id."""
    store = Store(url)
    try:
        return {image.id: image.sha256 for image in store.images.page(0, 1000)}
    finally:
        store.close()


def names(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix().replace("/", ":") for path in root.rglob("*.png")}


def test_a_mirrored_folder_loses_what_is_gone_from_it(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    url = settings["database_url"]
    done = mirror(folder, tmp_path, settings)
    assert done.returncode == 0, done.stderr
    assert "12 created" in done.stdout
    other = tmp_path / "other"
    tree(other, "b/0.png", "x.png")
    commands.run("import", str(other), folder=tmp_path, **settings)
    assert set(ids(url)) == {*names(folder), "x.png"}
    (folder / "a" / "1.png").unlink()
    (folder / "b" / "2.png").write_bytes(png(900))
    (folder / "new.png").write_bytes(png(901))
    (folder / "a" / "3.png").write_bytes(b"damaged")
    before = ids(url)
    done = mirror(folder, tmp_path, settings)
    assert "1 images are gone from the source" in done.stdout
    assert "1 created, 1 replaced" in done.stdout
    assert "1 deleted" in done.stdout
    assert done.returncode == 1
    assert "a/3.png: " in done.stderr
    after = ids(url)
    assert set(after) == {*names(folder), "x.png"}
    assert after["a:3.png"] == before["a:3.png"]
    assert after["b:2.png"] != before["b:2.png"]
    done = mirror(folder, tmp_path, settings)
    assert "deleted" not in done.stdout and "gone" not in done.stdout
    assert ids(url) == after


def test_files_that_did_not_change_are_not_read(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    mirror(folder, tmp_path, settings)
    kept = {path: path.stat() for path in folder.rglob("*.png")}
    for path, found in kept.items():  # other bytes that nobody can notice without reading them
        path.write_bytes(b"x" * found.st_size)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    done = mirror(folder, tmp_path, settings)
    assert (done.returncode, "12 unchanged" in done.stdout) == (0, True), done.stderr
    first = next(iter(kept))
    os.utime(first, (OLD + 10, OLD + 10))
    done = mirror(folder, tmp_path, settings)
    assert done.returncode == 1
    assert "11 unchanged" in done.stdout


def test_images_that_belong_to_others_stay(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    url = settings["database_url"]
    twin = tmp_path / "twin"
    shutil.copytree(folder, twin)
    mirror(folder, tmp_path, settings)
    mirror(twin, tmp_path, settings)
    for root in (folder, twin):
        for name in ("a/1.png", "b/2.png"):
            if root == folder or name != "b/2.png":
                (root / name).unlink()
    with Server(tmp_path, **settings) as server:
        server.index(png(950), ids='["b:4.png"]')
    (folder / "b" / "4.png").unlink()
    done = mirror(folder, tmp_path, settings)
    assert "3 images are gone" in done.stdout and "0 deleted" in done.stdout
    assert {"a:1.png", "b:2.png", "b:4.png"} <= set(ids(url))
    done = mirror(twin, tmp_path, settings)
    assert "1 images are gone" in done.stdout and "1 deleted" in done.stdout
    assert "a:1.png" not in ids(url) and "b:2.png" in ids(url)


def test_most_of_a_source_is_not_deleted_without_being_asked_for(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    url = settings["database_url"]
    mirror(folder, tmp_path, settings)
    shutil.move(folder / "a", tmp_path / "elsewhere")
    for path in [*(folder / "b").iterdir()][1:]:
        path.unlink()
    done = mirror(folder, tmp_path, settings)
    assert done.returncode == 1
    assert "11 of 12 images are gone" in done.stderr and "--delete-all" in done.stderr
    assert len(ids(url)) == 12
    shutil.rmtree(folder / "b")
    done = mirror(folder, tmp_path, settings)
    assert len(ids(url)) == 12
    done = mirror(folder, tmp_path, settings, "--delete-all")
    assert (done.returncode, "12 deleted" in done.stdout) == (0, True), done.stderr
    assert ids(url) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--delete-all"], "--mirror or --watch"),
        (["--watch", "--every", "1"], "at least"),
        (["--every", "x"], "--every"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    done = commands.run("import", ".", *arguments, folder=tmp_path)
    assert done.returncode in (1, 2)
    assert words in done.stderr


@contextmanager
def watching(
    folder: Path, tmp_path: Path, settings: dict[str, Any], *more: str
) -> Iterator["subprocess.Popen[str]"]:
    with (tmp_path / "watch.log").open("w") as log:
        process = commands.start(
            "import", str(folder), "--watch", *more, folder=tmp_path, output=log, **settings
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, (tmp_path / "watch.log").read_text()


def test_a_watched_folder_is_followed(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    url = settings["database_url"]
    log = tmp_path / "watch.log"
    with Server(tmp_path, **settings) as server, watching(folder, tmp_path, settings):
        until(lambda: "12 created" in log.read_text())
        (folder / "new.png").write_bytes(png(700))
        until(lambda: server.http.get("/images/new.png").status_code == 200)
        before = ids(url)
        (folder / "new.png").write_bytes(png(701))
        until(lambda: ids(url)["new.png"] != before["new.png"])
        (folder / "new.png").unlink()
        until(lambda: "new.png" not in ids(url))
        shutil.copytree(folder / "a", tmp_path / "b2")
        shutil.move(tmp_path / "b2", folder / "c")
        until(lambda: {"c:1.png", "c:11.png"} <= set(ids(url)))
        shutil.rmtree(folder / "c")
        until(lambda: not any(id.startswith("c:") for id in ids(url)))
        (folder / ".hidden.png").write_bytes(png(702))
        (folder / "bad.png").write_bytes(b"not an image")
        (folder / "last.png").write_bytes(png(703))
        until(lambda: "last.png" in ids(url))
        until(lambda: "bad.png: " in log.read_text())
        assert set(ids(url)) == names(folder) - {".hidden.png", "bad.png"}


def test_a_watched_folder_that_vanishes_costs_nothing(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    url = settings["database_url"]
    log = tmp_path / "watch.log"
    with watching(folder, tmp_path, settings, "--every", "5"):
        until(lambda: "12 created" in log.read_text())
        shutil.rmtree(folder / "a")
        until(lambda: len(ids(url)) == 6)
        shutil.move(folder, tmp_path / "unmounted")
        folder.mkdir()
        time.sleep(8)
        assert len(ids(url)) == 6
        until(lambda: "nothing was deleted" in log.read_text().lower())
        folder.rmdir()
        shutil.move(tmp_path / "unmounted", folder)
        (folder / "b" / "back.png").write_bytes(png(704))
        until(lambda: "b:back.png" in ids(url))
        assert len(ids(url)) == 7


def test_a_bucket_is_imported_and_mirrored(settings: dict[str, Any], tmp_path: Path) -> None:
    url = settings["database_url"]
    with S3(tmp_path) as s3:
        s3.make_bucket("photos")
        files = fsspec.filesystem(
            "s3", key="gpq", secret="gpq-secret", client_kwargs={"endpoint_url": s3.url}
        )
        for n in range(4):
            files.pipe_file(f"photos/shop/{'x' if n % 2 else 'y'}/{n}.png", png(n))
        files.pipe_file("photos/shop/.hidden/5.png", png(5))
        files.pipe_file("photos/other/6.png", png(6))
        files.pipe_file("photos/shop/bad.png", b"x")

        def run(*more: str):
            return commands.run(
                "import", "s3://photos/shop", *more, folder=tmp_path, variables=s3.environment,
                **settings,
            )  # fmt: skip

        done = run("--mirror")
        assert "done: 4 of 5 images" in done.stdout, done.stderr
        assert "bad.png: " in done.stderr
        assert set(ids(url)) == {"y:0.png", "x:1.png", "y:2.png", "x:3.png"}
        files.rm_file("photos/shop/x/1.png")
        files.pipe_file("photos/shop/y/0.png", png(800))
        before = ids(url)
        done = run("--mirror")
        assert "1 replaced" in done.stdout and "2 unchanged" in done.stdout
        assert "1 deleted" in done.stdout
        assert set(ids(url)) == {"y:0.png", "y:2.png", "x:3.png"}
        assert ids(url)["y:0.png"] != before["y:0.png"]
        assert run("--watch").returncode == 1
        missing = commands.run(
            "import", "s3://no-such-bucket/x", folder=tmp_path, variables=s3.environment, **settings
        )
        assert (missing.returncode, "bucket" in missing.stderr) == (1, True), missing.stderr
    for source in ("http://a.org/x", "file:///etc", "s3://", "nothing-known://x/y"):
        done = commands.run("import", source, folder=tmp_path, **settings)
        assert done.returncode == 1
        assert "error: " in done.stderr and "Traceback" not in done.stderr


def test_a_mirror_that_continues_an_import_deletes_nothing_that_is_there(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    url = settings["database_url"]
    mirror(folder, tmp_path, settings)
    store = Store(url)
    number = store.jobs.request("import", str(folder), by_service=False)
    job = store.jobs.claim("x", number)
    assert job is not None
    stopped = replace(job, state="stopped", done=8, total=12, cursor="c")
    assert store.jobs.report(stopped, "x", [], restarted=False)
    store.close()
    done = mirror(folder, tmp_path, settings)
    assert done.returncode == 0, done.stderr
    assert "deleted" not in done.stdout
    assert len(ids(url)) == 12


def test_nothing_is_deleted_if_an_entry_cannot_be_told_apart(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    url = settings["database_url"]
    manifest = folder / "list.jsonl"
    rows = [json.dumps({"path": f"{'a' if n % 2 else 'b'}/{n}.png"}) for n in range(4)]
    manifest.write_text("\n".join(rows))
    mirror(manifest, tmp_path, settings)
    manifest.write_text("\n".join([rows[0], "{", rows[2]]))
    done = mirror(manifest, tmp_path, settings)
    assert "nothing is deleted" in done.stdout
    assert len(ids(url)) == 4
    manifest.write_text("\n".join([rows[0], rows[2]]))
    done = mirror(manifest, tmp_path, settings, "--delete-all")
    assert "2 deleted" in done.stdout
    assert len(ids(url)) == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_watcher_survives_a_name_that_is_not_utf_8(
    settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    url, log = settings["database_url"], tmp_path / "watch.log"
    with watching(folder, tmp_path, settings):
        until(lambda: "12 created" in log.read_text())
        Path(os.fsdecode(bytes(folder) + b"/caf\xe9.png")).write_bytes(png(810))
        (folder / "later.png").write_bytes(png(811))
        until(lambda: {"caf~E9.png", "later.png"} <= set(ids(url)))
