import shutil
from pathlib import Path

import numpy as np
import pytest

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.errors import ArtifactError
from gpq.model import artifact
from gpq.model.graph import GRAPH
from harness.images import png, tree
from harness.server import Server
from service.database.migrate import migrate
from service.database.store import Store
from service.models import artifacts
from tests.trainer.artifacts.models import contents, edit, make_older
from trainer.__main__ import main
from trainer.artifacts import graph
from trainer.artifacts import upgrade as upgrading
from trainer.artifacts.upgrade import upgrade, upgrade_database
from trainer.components.source import Source
from trainer.errors import TrainerError

PIXELS = np.random.default_rng(5).integers(0, 256, (48, 3, 32, 32), dtype=np.uint8)
IMAGES = 8


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_upgraded_model_keeps_its_id_its_weights_and_its_codes(
    number: int, trained_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_older(trained_model, tmp_path / "older", number)
    before, files = artifact.load(folder), contents(folder)
    assert (before.codebook.means is None, before.codebook.classes is None) == (
        number < 2,
        number < 3,
    )
    assert before.cost is None
    codes = engines.load(folder).encode(PIXELS)
    with pytest.raises(ArtifactError, match="needs the graph"):
        engines.load(folder, Options("onnxruntime"))

    assert main(["upgrade", str(folder)]) == 0
    assert f"{folder}: upgraded" in capsys.readouterr().err
    after = artifact.load(folder)
    assert after.id == before.id
    assert after.about == before.about
    assert contents(folder)["model.safetensors"] == files["model.safetensors"]
    assert artifact.read_config(folder)["format"] == 4
    for engine in engines.ENGINES:
        assert (engines.load(folder, Options(engine)).encode(PIXELS) == codes).all()

    upgraded = contents(folder)
    assert not upgrade(folder)
    assert main(["upgrade", str(folder)]) == 0
    assert f"{folder}: has a graph already" in capsys.readouterr().err
    assert contents(folder) == upgraded


@pytest.mark.parametrize("verified", ["by torch", "by the graph only"])
def test_a_model_that_computes_other_codes_stays_as_it_is(
    verified: str, trained_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_older(trained_model, tmp_path / "older", 3)
    edit(folder, lambda config: config["about"]["golden"][1]["code"].reverse())
    if verified == "by the graph only":
        healthy = upgrading.read(trained_model).network
        monkeypatch.setattr(
            upgrading, "read", lambda folder: Source(artifact.load(folder), healthy)
        )
    files = contents(folder)
    with pytest.raises(ArtifactError, match="golden vector 1 encodes to"):
        upgrade(folder)
    assert contents(folder) == files


def test_what_cannot_be_upgraded_is_one_clear_line(
    trained_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def error(*words: str) -> str:
        assert main(["upgrade", *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "nothing to upgrade: name the folder" in error()
    assert "no finished model in this folder" in error(str(tmp_path))
    absent = error("--database", f"sqlite:///{tmp_path}/gpq.db")
    assert absent.startswith("error: --database: GPQ_DATABASE_URL: there is no database ")
    folder = make_older(trained_model, tmp_path / "older", 3)
    files = contents(folder)
    monkeypatch.setattr(graph, "NEEDED", ("no_such_module",))
    assert "no graph can be made, because no_such_module is not installed" in error(str(folder))
    assert contents(folder) == files


def test_a_model_trained_without_an_exporter_is_upgraded_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tree(tmp_path / "images", *_labelled()), tmp_path / "out"
    words = ["--width", "4", "--batch-labelled", "4", "--batch-unlabelled", "4", "--steps", "1"]
    with monkeypatch.context() as patched:
        patched.setattr(graph, "NEEDED", ("no_such_module",))
        assert main(["train", "--data", str(images), "--out", str(out), *words]) == 0
    printed = capsys.readouterr().err
    assert "gets no graph, because no_such_module is not installed" in printed
    assert "`python -m trainer upgrade`" in printed
    assert artifact.read_config(out)["format"] == 3
    assert not (out / GRAPH).exists()
    before = engines.load(out)
    assert before.network.engine == "torch"
    assert upgrade(out)
    after = engines.load(out, Options("onnxruntime"))
    assert after.id == before.id
    assert (after.encode(PIXELS) == before.encode(PIXELS)).mean() > 0.99


def test_the_models_of_a_database_are_upgraded_in_place(
    trained_model: Path, random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_older(trained_model, tmp_path / "older", 3)
    url = f"sqlite:///{tmp_path}/gpq.db"
    settings = {"database_url": url, "image_store": tmp_path / "images", "precision": "float32"}
    with Server(tmp_path, model=folder, engine="torch", **settings) as server:
        for n in range(IMAGES):
            assert server.index(png(n), ids=f'["i{n}"]').status_code == 200
        model, stats = server.http.get("/model").json()["id"], _checksum(server)
    store = Store(url)
    migrate(store.database)
    store.models.add(artifact.load(random_model).id, artifacts.read(random_model))
    assert GRAPH not in store.models.files(model)

    assert main(["upgrade", "--database", url]) == 0
    assert capsys.readouterr().err == f"{model}: upgraded\n"  # the other model has a graph
    assert {known.id for known in store.models.all()} == {model, artifact.load(random_model).id}
    files = store.models.files(model)
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert GRAPH in files
    store.close()
    assert list(upgrade_database(url)) == []
    shutil.rmtree(folder)

    with Server(tmp_path, engine="openvino", **settings) as server:
        assert server.http.get("/model").json()["id"] == model
        assert _checksum(server) == stats
        for n in range(IMAGES):
            hits = server.search(png(n), k=IMAGES).json()["results"]
            best = [hit["id"] for hit in hits if hit["score"] == hits[0]["score"]]
            assert f"i{n}" in best


def test_a_database_without_models_has_nothing_to_upgrade(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/gpq.db"
    store = Store(url)
    migrate(store.database)
    store.close()
    assert list(upgrade_database(url)) == []


def test_a_model_whose_files_are_lost_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/gpq.db"
    store = Store(url)
    migrate(store.database)
    store.models.adopt("e" * 64, {})
    store.close()
    with pytest.raises(TrainerError, match=r"^--database: .*but not its files"):
        list(upgrade_database(url))


def _labelled() -> list[str]:
    return [f"labeled/{name}/{n}.png" for name in "ab" for n in range(2)]


def _checksum(server: Server) -> object:
    return server.http.get("/stats", params={"checksum": "true"}).json()["checksum"]
