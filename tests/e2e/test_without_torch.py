"""Tests that the service needs no torch, as after an installation without the extra ``train``."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gpq.model import artifact
from gpq.model.graph import GRAPH
from harness.images import png, tree
from harness.models import DEFAULT, PHOTOS64, SHIPPED, fields, make_artifact
from harness.server import Server
from service.database.migrate import migrate
from service.database.records import Put
from service.database.store import Store
from service.models import artifacts
from tests.waiting import until
from trainer.artifacts.cut import cut

BITS = 24
UPGRADE = "python -m trainer upgrade"


def without_graph(folder: Path) -> dict[str, bytes]:
    """Returns the files of a shipped model before it had a graph."""
    files = artifacts.read(folder)
    del files[GRAPH]
    config = {**json.loads(files[artifact.CONFIG]), "format": 3}
    return {**files, artifact.CONFIG: json.dumps(config).encode()}


@pytest.fixture(scope="module")
def cut_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 24 bits that is not shipped."""
    folder = tmp_path_factory.mktemp("cut")
    cut(PHOTOS64, BITS, folder)
    return folder


@pytest.fixture
def graphless(cut_model: Path, tmp_path: Path) -> Iterator[tuple[Store, str]]:
    """A store whose model has no graph, and its id. It is the service's own database."""
    (tmp_path / "data").mkdir()
    with closing(Store(f"sqlite:///{tmp_path}/data/gpq.db")) as store:
        migrate(store.database)
        id = artifact.load(cut_model).id
        store.models.adopt(id, without_graph(cut_model))
        yield store, id


def test_a_service_stores_searches_and_runs_jobs(random_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    id = make_artifact(other, seed=9, M=6)
    tree(tmp_path / "in", *(f"{n}.png" for n in range(20)))
    server = Server(tmp_path, model=random_model, import_folder=tmp_path / "in")
    with server:
        assert server.index(png(3), ids='["three"]').status_code == 200
        assert server.search(png(3), k=1).json()["results"][0]["id"] == "three"

        def run(path: str, body: dict[str, str] | None = None) -> None:
            job = server.http.post(path, json=body).headers["Location"]
            until(lambda: server.http.get(job).json()["state"] in ("done", "failed"), seconds=60)
            assert server.http.get(job).json()["state"] == "done", server.http.get(job).text

        run("/jobs/import", {"source": "."})
        assert server.http.get("/stats").json()["images"] == 21
        assert server.http.post("/models", files=fields(other)).status_code == 201
        run("/jobs/reindex")
        assert server.http.post(f"/models/{id}/activate").status_code == 200
        assert server.search(png(3), k=1).json()["model"] == id
        network = server.http.get("/stats").json()["network"]
        assert network["engine"] == "openvino"
        assert network["reason"] == "the fastest available"


def test_a_posted_model_without_a_graph_is_refused_with_the_way_to_upgrade_it(
    random_model: Path, tmp_path: Path
) -> None:
    files = without_graph(SHIPPED)
    server = Server(tmp_path, model=random_model)
    with server:
        config, weights = files.values()
        parts = {"config": config, "weights": weights}
        refused = server.http.post("/models", files=parts)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-model")
        assert UPGRADE in refused.json()["detail"]
        assert len(server.http.get("/models").json()["models"]) == 1


def test_a_start_with_a_model_without_a_graph_ends_with_the_way_to_upgrade_it(
    tmp_path: Path,
) -> None:
    artifacts.write(without_graph(SHIPPED), tmp_path / "old")
    server = Server(tmp_path, model=tmp_path / "old")
    server.start()
    assert server.process is not None
    assert server.process.wait(60) == 1
    last = server.printed().splitlines()[-1]
    assert last.startswith("error: ") and UPGRADE in last
    server.http.close()


def test_a_service_waits_until_the_active_model_has_a_graph(
    graphless: tuple[Store, str], cut_model: Path, tmp_path: Path
) -> None:
    store, id = graphless
    store_an_image(store, {id: bytes(3)})
    server = Server(tmp_path)
    server.start()
    server.wait_until_not_ready(f"model {id} cannot be loaded here")
    assert UPGRADE in server.http.get("/readyz").json()["detail"]
    assert store.models.add(id, artifacts.read(cut_model)) is False
    server.wait_until_ready()
    assert server.search(png(1)).json()["results"][0]["id"] == "a"
    assert server.stop() == 0
    assert "unexpected" not in server.printed() and "Traceback" not in server.printed()


def test_a_service_adds_the_graph_of_an_active_model_that_is_shipped(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with closing(Store(f"sqlite:///{tmp_path}/data/gpq.db")) as store:
        migrate(store.database)
        id = artifact.load(SHIPPED).id
        store.models.adopt(id, without_graph(SHIPPED))
        store_an_image(store, {id: bytes(6)})
        with Server(tmp_path) as server:
            assert server.http.get("/model").json()["id"] == id != artifact.load(DEFAULT).id
            assert GRAPH in store.models.files(id)


def test_puts_wait_until_every_model_has_a_graph_and_searches_do_not(
    graphless: tuple[Store, str], cut_model: Path, tmp_path: Path
) -> None:
    store, id = graphless
    shipped = artifact.load(SHIPPED).id
    store.models.add(shipped, without_graph(SHIPPED))
    store.models.activate(shipped)
    store_an_image(store, {id: bytes(3), shipped: bytes(6)})
    server = Server(tmp_path)
    with server:
        assert server.search(png(1)).json()["results"][0]["id"] == "a"
        refused = server.index(png(2))
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert id in refused.json()["detail"] and UPGRADE in refused.json()["detail"]
        assert store.models.add(id, artifacts.read(cut_model)) is False
        until(lambda: server.index(png(2)).status_code == 200)


def store_an_image(store: Store, codes: dict[str, bytes]) -> None:
    """Stores an image with the id ``a`` and its codes by models."""
    store.images.put([Put("a", codes, "0" * 64, 4, 3, 100, None)])
