"""Tests of changing models under a running service: add, re-index, activate, roll back, prune."""

import hashlib
import itertools
import json
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from harness import commands
from harness.images import png
from harness.models import fields, make_artifact
from harness.server import Server
from service.database.store import Store
from service.settings import DATABASE_THREADS
from tests import waiting

IMAGES = 60
until = partial(waiting.until, seconds=60)


def models(*arguments: str, folder: Path, **settings: object) -> str:
    """Runs ``python -m service models``, which must succeed, and returns what it prints."""
    return commands.service("models", *arguments, folder=folder, **settings)


def run(*arguments: str, folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    return commands.run("models", *arguments, folder=folder, **settings)


@pytest.fixture
def other_model(tmp_path: Path) -> tuple[Path, str]:
    """The folder and the id of a model that no database holds."""
    folder = tmp_path / "other-model"
    return folder, make_artifact(folder, seed=9, M=6)


class Clients:
    """Searches every server and writes to the last one in the background.

    ``seen``: ids of the models that answered. ``failures``: replies that were wrong.
    """

    def __init__(self, servers: list[Server]) -> None:
        self.seen: set[str] = set()
        self.failures: list[str] = []
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._search, args=(s,)) for s in servers]
        self._threads.append(threading.Thread(target=self._write, args=(servers[-1],)))

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _search(self, server: Server) -> None:
        for n in itertools.cycle(range(IMAGES)):
            if self._done.wait(0.01):
                return
            reply = server.search(png(n), k=1)
            if reply.status_code != 200 or len(reply.json()["results"]) != 1:
                self.failures.append(reply.text)
            self.seen.add(reply.json().get("model"))

    def _write(self, server: Server) -> None:
        for n in itertools.count(1000):
            if self._done.wait(0.01):
                return
            reply = server.index(png(n), ids=f'["w{n % 7}"]')
            if reply.status_code != 200:
                self.failures.append(reply.text)


def active(*servers: Server) -> set[str]:
    return {server.http.get("/model").json()["id"] for server in servers}


def test_another_model_becomes_active_with_no_request_failing(
    random_model: Path, other_model: tuple[Path, str], database_url: str, tmp_path: Path
) -> None:
    folder, new = other_model
    settings = {"database_url": database_url, "image_store": tmp_path / "images"}
    command = {**settings, "folder": tmp_path}
    one = Server(tmp_path, model=random_model, **settings)
    two = Server(tmp_path, model=random_model, **settings)
    with one, two:
        for n in range(IMAGES):
            assert one.index(png(n), ids=f'["p{n}"]').status_code == 200
        (old,) = active(one, two)
        with Clients([one, two]) as clients:
            models("add", str(folder), **command)
            refused = run("activate", new, **command)
            assert refused.returncode == 1
            assert "images have no code of model" in refused.stderr
            models("reindex", "--share", "1", **command)
            assert f"before: {old}" in models("activate", new[:12], **command)
            until(lambda: active(one, two) == {new})
            listed = models("list", **command)
            assert f"{old}  ready" in listed and f"{new}  active" in listed
            assert "without a code" not in listed
            models("rollback", **command)
            until(lambda: active(one, two) == {old})
            models("activate", new, **command)
            until(lambda: active(one, two) == {new})
            models("prune", **command)
            time.sleep(1)
        assert clients.failures == []
        assert clients.seen == {old, new}
        assert "no model was active before" in run("rollback", **command).stderr
        for n in range(7):
            one.http.delete(f"/images/w{n}")
        until(lambda: two.http.get("/stats").json()["images"] == IMAGES)
        found = [server.search(png(3), k=IMAGES).json()["results"] for server in (one, two)]
        numbers = one.http.get("/stats?checksum=true").json()["checksum"]
        assert numbers["memory"] == numbers["database"]
    # A restart without GPQ_MODEL serves the active model of the database, and answers as a new
    # service with that model does.
    fresh_folder = tmp_path / "fresh"
    fresh_folder.mkdir()
    fresh = Server(fresh_folder, model=folder, image_store="none")
    with fresh, Server(tmp_path, model="", **settings) as restarted:
        assert active(restarted) == {new}
        for n in range(IMAGES):
            fresh.index(png(n), ids=f'["p{n}"]')
        expected = fresh.search(png(3), k=IMAGES).json()["results"]
        assert found == [expected, expected]
        assert restarted.search(png(3), k=IMAGES).json()["results"] == expected


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_another_model_becomes_active_over_http(
    random_model: Path, other_model: tuple[Path, str], database_url: str, tmp_path: Path
) -> None:
    folder, new = other_model
    settings = {"database_url": database_url, "image_store": tmp_path / "images"}
    one = Server(tmp_path, model=random_model, **settings)
    two = Server(tmp_path, model=random_model, **settings)
    with one, two:
        for n in range(IMAGES):
            assert one.index(png(n), ids=f'["p{n}"]').status_code == 200
        (old,) = active(one, two)
        files = fields(folder)
        with Clients([one, two]) as clients:
            added = one.http.post("/models", files=files)
            assert added.status_code == 201, added.text
            assert added.headers["Location"] == f"/models/{new}"
            assert IMAGES <= added.json()["without_code"] <= IMAGES + 7  # clients write
            assert not added.json()["ready"]
            assert one.http.post("/models", files=files).status_code == 409
            early = one.http.post(f"/models/{new}/activate")
            assert early.status_code == 409 and "re-index first" in early.json()["detail"]
            accepted = two.http.post("/jobs/reindex")
            assert accepted.status_code == 202 and accepted.json()["kind"] == "reindex"
            job_url = accepted.headers["Location"]
            until(lambda: one.http.get(job_url).json()["state"] == "done")
            assert IMAGES <= one.http.get(job_url).json()["done"] <= IMAGES + 7
            assert one.http.post(f"/models/{new[:12]}/activate").json() == {
                "active": new, "before": old,
            }  # fmt: skip
            until(lambda: active(one, two) == {new})
            listed = two.http.get("/models").json()["models"]
            assert [(row["id"], row["active"], row["ready"]) for row in listed] == [
                (old, False, True), (new, True, True),
            ]  # fmt: skip
            assert two.http.delete(f"/models/{new}").status_code == 409
            assert two.http.post("/models/rollback").json() == {"active": old, "before": new}
            until(lambda: active(one, two) == {old})
            assert two.http.delete(f"/models/{new}").status_code == 204
            time.sleep(1)
        assert clients.failures == []
        gone = one.http.delete(f"/models/{new}")
        assert (gone.status_code, gone.json()["code"]) == (404, "no-such-model")
        assert one.http.post("/models/rollback").status_code == 409
        broken = one.http.post("/models", files={**files, "weights": b"not weights"})
        assert broken.status_code == 422, broken.text
        assert broken.json()["detail"].startswith("model.safetensors: "), broken.text
        config = json.loads(files["config"])
        without_graph = {name: files[name] for name in ("config", "weights")}
        for change, parts in (
            ({"M": float("inf")}, files),
            ({"preprocess": {**config["compute"]["preprocess"], "size": 30000}}, files),
            ({"network": {"name": 3}}, files),
            ({"network": {"name": "resnet", "width": -1}}, without_graph),
            ({"network": {"name": "resnet", "width": 10**9}}, without_graph),
        ):
            odd = {"format": 4 if "graph" in parts else 3, "about": config["about"]}
            odd["compute"] = {**config["compute"], **change}
            refused = one.http.post("/models", files={**parts, "config": json.dumps(odd)})
            assert refused.status_code == 422, (change, refused.text)
        nested = one.http.post("/models", files={**files, "config": "[" * 100_000})
        assert nested.status_code == 422
        missing = one.http.post("/models", files={"config": files["config"]})
        assert missing.status_code == 422 and "weights" in missing.json()["detail"]


def test_a_model_that_a_database_never_held_is_not_served_with_it(
    random_model: Path, other_model: tuple[Path, str], database_url: str, tmp_path: Path
) -> None:
    folder, new = other_model
    with Server(tmp_path, model=random_model, database_url=database_url) as server:
        server.index(png(1))
        (old,) = active(server)
    with Server(tmp_path, model=folder, database_url=database_url) as server:
        detail = server.http.get("/readyz").json()["detail"]
        assert old in detail and new in detail and "models add" in detail


def test_a_reindex_lists_failures_and_the_next_one_does_only_the_rest(
    random_model: Path, other_model: tuple[Path, str], database_url: str, tmp_path: Path
) -> None:
    folder, new = other_model
    images = tmp_path / "images"
    settings = {"database_url": database_url, "image_store": images}
    command = {**settings, "folder": tmp_path}
    with Server(tmp_path, model=random_model, **settings) as server:
        for n in range(30):
            assert server.index(png(n), ids=f'["p{n}"]').status_code == 200
        models("add", str(folder), **command)
        none = run("reindex", "--share", "1", **{**command, "image_store": "none"})
        assert none.returncode == 1
        assert "without originals no image can be re-encoded" in none.stderr
        missing, damaged = (hashlib.sha256(png(n)).hexdigest() for n in (3, 5))
        (images / missing[:2] / missing).unlink()
        (images / damaged[:2] / damaged).write_bytes(b"not an image")
        partly = run("reindex", "--share", "1", **command)
        assert partly.returncode == 1
        assert "p3: its original is not kept" in partly.stderr
        assert "p5: its original cannot be decoded" in partly.stderr
        assert "done: 28 of 30 images" in partly.stdout
        assert "2 images without a code" in models("list", **command)
        refused = run("activate", new, **command).stderr
        assert f"2 images have no code of model {new} yet: re-index first" in refused
        assert "post, import or delete the images that the re-index lists as failures" in refused
        # Posting the same bytes again restores the original and adds the code.
        for n, sha256 in ((3, missing), (5, damaged)):
            again = server.index(png(n), ids=f'["p{n}"]').json()["items"][0]
            assert again["status"] == "unchanged"
            assert (images / sha256[:2] / sha256).read_bytes() == png(n)
        models("activate", new, **command)
        assert "nothing to do" in models("reindex", "--share", "1", **command)
        until(lambda: active(server) == {new})
        assert server.search(png(3), k=1).json()["model"] == new
        wrong = run("add", str(folder), **command)
        assert (wrong.returncode, "was added already" in wrong.stderr) == (1, True)
        assert "no model id begins with zz" in run("activate", "zz", **command).stderr
        assert "more than 0" in run("reindex", "--share", "0", **command).stderr


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_activations_that_wait_for_a_process_do_not_delay_other_requests(
    random_model: Path, other_model: tuple[Path, str], database_url: str, tmp_path: Path
) -> None:
    folder, new = other_model
    files = fields(folder)
    with Server(tmp_path, model=random_model, database_url=database_url) as server:
        assert server.http.post("/models", files=files).json()["ready"]
        store = Store(database_url)
        loading = threading.Event()
        loading.set()

        def load_slowly() -> None:
            """Acts as a process that lives and has not loaded the codes yet."""
            while loading.is_set():
                store.replicas.beat("slow", 0)
                time.sleep(1)
            store.replicas.leave("slow")

        with ThreadPoolExecutor(2 * DATABASE_THREADS + 1) as pool:
            pool.submit(load_slowly)
            until(lambda: any(replica.name == "slow" for replica in store.replicas.alive()))
            replies = [
                pool.submit(server.http.post, f"/models/{new}/activate", timeout=60)
                for _ in range(2 * DATABASE_THREADS)
            ]
            time.sleep(2)
            for path in ("/images", "/stats", "/models"):
                assert server.http.get(path, timeout=10).status_code == 200
            assert not any(reply.done() for reply in replies)
            loading.clear()
            assert {reply.result().status_code for reply in replies} == {200}
        store.close()
