"""Tests of databases whose models have no graph, as those of earlier versions, and get one."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import onnx
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.model import artifact
from gpq.model.graph import GRAPH
from gpq.model.weights import WEIGHTS
from harness import commands
from harness.images import EXAMPLES
from harness.models import SHIPPED, fields, make_artifact
from harness.server import Server
from service.database import dump, schema
from service.database.migrate import migrate
from service.database.models import ModelTable
from service.database.records import Put
from service.database.store import Store
from service.errors import ModelError
from service.models import artifacts
from tests.waiting import until

IMAGES = sorted(EXAMPLES.rglob("*.jpg"))[::10]
OLD_FORMATS = (1, 2, 3)  # that the version before graphs reads
OLD_REVISION = "0005"


def old_files() -> dict[str, bytes]:
    """Returns the files of the shipped model before it had a graph."""
    config = {**json.loads((SHIPPED / artifact.CONFIG).read_bytes()), "format": 3}
    return {
        artifact.CONFIG: json.dumps(config, indent=1, ensure_ascii=False).encode(),
        WEIGHTS: (SHIPPED / WEIGHTS).read_bytes(),
    }


class OldModels:
    """The statements of the version before graphs on the models and their files."""

    models = sa.Table(
        "models",
        sa.MetaData(),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("added", sa.String(32), nullable=False),
        sqlite_autoincrement=True,
    )

    def __init__(self, store: Store) -> None:
        self.database = store.database

    def all(self) -> list[tuple[int, str, bool, bool, str]]:
        query = sa.select(*self.models.c).order_by(self.models.c.number)
        with self.database.read() as connection:
            return [(*row,) for row in connection.execute(query)]

    def adopt(self, id: str, files: Mapping[str, bytes]) -> str:
        """Makes a model the active one of a database without images; returns the active id."""

        def adopt(connection: Connection) -> str:
            columns = self.models.c.number, self.models.c.id
            found = connection.execute(
                sa.select(*columns).where(self.models.c.active)
            ).one_or_none()
            empty = connection.scalar(sa.select(schema.images.c.id).limit(1)) is None
            if found is not None and not (empty and found.id != id):
                if found.id == id:
                    self._keep(connection, found.number, files)
                return str(found.id)
            for table in (schema.artifacts, schema.codes, self.models):
                connection.execute(sa.delete(table))
            self._keep(connection, self._insert(connection, id, active=True), files)
            return id

        return self.database.write(adopt)

    def add(self, id: str, files: Mapping[str, bytes]) -> None:
        def add(connection: Connection) -> None:
            self._keep(connection, self._insert(connection, id, active=False), files)

        self.database.write(add)

    def delete(self, id: str) -> None:
        def delete(connection: Connection) -> None:
            of_model = sa.select(self.models.c.number).where(self.models.c.id == id)
            files = schema.artifacts
            connection.execute(sa.delete(files).where(files.c.model.in_(of_model)))
            connection.execute(sa.delete(self.models).where(self.models.c.id == id))

        self.database.write(delete)

    def files(self, id: str) -> dict[str, bytes]:
        files = schema.artifacts
        query = sa.select(files.c.name, files.c.content)
        query = query.join(self.models, self.models.c.number == files.c.model)
        with self.database.read() as connection:
            rows = connection.execute(query.where(self.models.c.id == id))
            return {row.name: row.content for row in rows}

    def _insert(self, connection: Connection, id: str, *, active: bool) -> int:
        values = {"id": id, "active": active, "whole": True, "added": "2026-01-01T00:00:00Z"}
        insert = sa.insert(self.models).values(**values).returning(self.models.c.number)
        return int(connection.execute(insert).scalar_one())

    def _keep(self, connection: Connection, number: int, files: Mapping[str, bytes]) -> None:
        kept = sa.select(schema.artifacts.c.name).where(schema.artifacts.c.model == number)
        if connection.scalar(kept.limit(1)) is None:
            rows = [{"model": number, "name": n, "content": c} for n, c in files.items()]
            connection.execute(sa.insert(schema.artifacts), rows)


def make_old_database(url: str) -> str:
    """Fills a database as the version before graphs would; returns the id of its model."""
    model = engines.load(SHIPPED)
    with closing(Store(url)) as store:
        migrate(store.database, OLD_REVISION)
        OldModels(store).adopt(model.id, old_files())
        puts = []
        for n, path in enumerate(IMAGES):
            code = model.encode(model.read(path.read_bytes())[None])[0].tobytes()
            puts.append(Put(f"p{n}", {model.id: code}, f"{n:064x}", 4, 3, 100, None))
        store.images.put(puts)
    return model.id


def recorded(store: Store) -> dict[str, str | None]:
    """Returns the recorded SHA-256 of each model's graph, by the model's id."""
    with store.database.read() as connection:
        rows = connection.execute(sa.select(schema.models.c.id, schema.models.c.graph))
        return {row.id: row.graph for row in rows}


def answers(server: Server) -> list[list[tuple[str, float]]]:
    found = [server.search(path.read_bytes(), k=100).json() for path in IMAGES[::6]]
    return [[(hit["id"], hit["score"]) for hit in body["results"]] for body in found]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[list[tuple[str, float]]]:
    """What a new service with the shipped model and the same images answers."""
    with Server(tmp_path_factory.mktemp("new"), model=SHIPPED, image_store="none") as server:
        for n, path in enumerate(IMAGES):
            assert server.index(path.read_bytes(), ids=f'["p{n}"]').status_code == 200
        return answers(server)


@pytest.fixture
def graphless(database_url: str, tmp_path: Path) -> Iterator[Store]:
    """A migrated store with a random active model and the shipped one, which has no graph."""
    make_artifact(tmp_path / "active")
    with closing(Store(database_url)) as store:
        migrate(store.database)
        id = artifact.load(tmp_path / "active").id
        store.models.adopt(id, artifacts.read(tmp_path / "active"))
        OldModels(store).add(artifact.load(SHIPPED).id, old_files())
        yield store


def with_another_graph(folder: Path) -> Path:
    """Writes the shipped model to a folder, with a graph of other bytes, and returns the folder."""
    shutil.copytree(SHIPPED, folder)
    graph = onnx.load(folder / GRAPH, load_external_data=False)
    graph.doc_string = "another one"
    (folder / GRAPH).write_bytes(graph.SerializeToString())
    return folder


def test_a_database_of_the_version_before_graphs_gets_the_graph_at_the_start(
    database_url: str, tmp_path: Path, expected: list[list[tuple[str, float]]]
) -> None:
    id = make_old_database(database_url)
    settings = {"model": SHIPPED, "database_url": database_url, "image_store": "none"}
    servers = [Server(tmp_path, engine=engine, **settings) for engine in ("auto", "openvino")]
    with ExitStack() as stack:
        for server in servers:  # at the same time, as replicas may
            server.start()
            stack.push(server.__exit__)
        for server in servers:
            server.wait_until_ready()
            assert server.http.get("/model").json()["id"] == id
            assert server.http.get("/stats").json()["network"]["engine"] == "openvino"
            assert answers(server) == expected
        with closing(Store(database_url)) as store:
            graph = (SHIPPED / GRAPH).read_bytes()
            assert recorded(store) == {id: artifact.digest(graph)}
            assert store.models.files(id) == {**old_files(), GRAPH: graph}
        assert servers[0].index(IMAGES[0].read_bytes(), ids='["new"]').status_code == 200
        scores = dict(answers(servers[0])[0])
        assert scores["new"] == scores["p0"]
    # The database alone is enough from now on.
    with Server(tmp_path, engine="openvino", **{**settings, "model": ""}) as server:
        assert len(answers(server)[0]) == len(IMAGES) + 1


def test_a_process_of_the_version_before_graphs_works_beside_a_new_one(
    database_url: str, tmp_path: Path
) -> None:
    id = make_old_database(database_url)
    with closing(Store(database_url)) as store:
        migrate(store.database)
        old = OldModels(store)
        shipped = artifacts.read(SHIPPED)
        assert store.models.adopt(id, shipped) == id
        before = old.all()
        assert [row[1:4] for row in before] == [(id, True, True)]
        assert old.adopt(id, old_files()) == id
        assert old.all() == before
        assert json.loads(old.files(id)[artifact.CONFIG])["format"] in OLD_FORMATS
        assert old.files(id)[WEIGHTS] == shipped[WEIGHTS]
        # A model that it adds has no graph until a new process adds it.
        other = tmp_path / "other"
        make_artifact(other)
        files = artifacts.read(other)
        old.add("x", {name: files[name] for name in (artifact.CONFIG, WEIGHTS)})
        assert recorded(store) == {id: artifact.digest(shipped[GRAPH]), "x": None}
        assert store.models.add("x", files) is False
        assert recorded(store)["x"] == artifact.digest(files[GRAPH])
        assert old.files("x") == files
        old.delete("x")
        assert [model.id for model in store.models.all()] == [id]
        # It may also meet an empty database that a new process has filled.
        with store.database.transaction() as connection:
            for table in (schema.codes, schema.images):
                connection.execute(sa.delete(table))
        assert old.adopt("y", {artifact.CONFIG: b"{}"}) == "y"
        assert recorded(store) == {"y": None}
        assert store.models.files("y") == {artifact.CONFIG: b"{}"}


def test_a_store_refuses_another_graph_for_a_known_model(database_url: str) -> None:
    files = {artifact.CONFIG: b"{}", WEIGHTS: b"weights"}
    with closing(Store(database_url)) as store:
        migrate(store.database)
        models: ModelTable = store.models
        models.adopt("m", files)
        with pytest.raises(ModelError, match="m was added already"):
            models.add("m", files)
        assert recorded(store) == {"m": None}
        assert models.adopt("m", {**files, GRAPH: b"graph"}) == "m"
        for _ in range(2):  # the same graph again, or none, changes nothing
            assert models.adopt("m", {**files, GRAPH: b"graph"}) == "m"
            assert models.adopt("m", files) == "m"
            with pytest.raises(ModelError, match="m was added already"):
                models.add("m", {**files, GRAPH: b"graph"})
        for refused in (models.adopt, models.add):
            with pytest.raises(ModelError, match=r"another network\.onnx of model m, .* save m "):
                refused("m", {**files, GRAPH: b"other"})
        assert recorded(store) == {"m": artifact.digest(b"graph")}
        assert models.files("m") == {**files, GRAPH: b"graph"}
        # Without images, another model replaces it, and may be added again with another graph.
        assert models.adopt("n", {**files, GRAPH: b"n"}) == "n"
        assert models.add("m", {**files, GRAPH: b"other"}) is True
        hashes = {"n": artifact.digest(b"n"), "m": artifact.digest(b"other")}
        assert recorded(store) == hashes


def test_a_service_refuses_another_graph_for_its_model(database_url: str, tmp_path: Path) -> None:
    other = with_another_graph(tmp_path / "other")
    settings = {"database_url": database_url, "image_store": "none"}
    with Server(tmp_path, model=SHIPPED, **settings) as server:
        id = server.http.get("/model").json()["id"]
        refused = server.http.post("/models", files=fields(other))
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        added = commands.run("models", "add", str(other), folder=tmp_path, **settings)
        assert (added.returncode, added.stdout) == (1, "")
        reason = f"the database has another network.onnx of model {id}"
        for text in (refused.json()["detail"], added.stderr):
            assert reason in text and f"models save {id[:12]} FOLDER" in text
        assert len(server.http.get("/models").json()["models"]) == 1
    server = Server(tmp_path, model=other, **settings)
    server.start()
    server.wait_until_not_ready(reason)
    assert server.search(IMAGES[0].read_bytes()).status_code == 503
    assert server.stop() == 0
    assert f"ERROR: gpq.service: {reason}" in server.printed()
    assert "unexpected" not in server.printed() and "Traceback" not in server.printed()
    # The advice helps.
    commands.service("models", "save", id[:12], "saved", folder=tmp_path, **settings)
    with Server(tmp_path, model=tmp_path / "saved", **settings) as server:
        assert server.http.get("/model").json()["id"] == id


def test_saved_models_load_again(graphless: Store, database_url: str, tmp_path: Path) -> None:
    settings = {"folder": tmp_path, "database_url": database_url, "image_store": "none"}
    active, shipped = (model.id for model in graphless.models.all())
    assert (
        commands.service("models", "save", active[:9], "a", **settings)
        == f"wrote model {active} to a\n"
    )
    commands.service("models", "save", shipped, "s", **settings)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(artifact.NAMES)
    assert artifacts.read(tmp_path / "s") == old_files()
    for name, id in (("a", active), ("s", shipped)):
        assert engines.load(tmp_path / name).id == id
    again = commands.run("models", "save", active, "a", **settings)
    assert (again.returncode, "a exists already; name a new folder" in again.stderr) == (1, True)
    unknown = commands.run("models", "save", "zz", "z", **settings)
    assert "no model id begins with zz" in unknown.stderr and not (tmp_path / "z").exists()


@pytest.mark.parametrize("over_http", [False, True])
def test_adding_a_known_model_with_its_graph_adds_the_graph(
    graphless: Store, database_url: str, tmp_path: Path, over_http: bool
) -> None:
    settings = {"database_url": database_url, "image_store": "none"}
    shipped = graphless.models.all()[1].id
    if over_http:
        with Server(tmp_path, model=tmp_path / "active", **settings) as server:
            added = server.http.post("/models", files=fields(SHIPPED))
            assert (added.status_code, added.json()["id"]) == (201, shipped)
            again = server.http.post("/models", files=fields(SHIPPED))
            assert again.status_code == 409 and "was added already" in again.json()["detail"]
    else:
        place = {"folder": tmp_path, **settings}
        printed = commands.service("models", "add", str(SHIPPED), **place)
        assert printed == f"added the graph of {shipped}; it needs no reindex\n"
        again = commands.run("models", "add", str(SHIPPED), **place)
        assert again.returncode == 1 and "was added already" in again.stderr
    graph = (SHIPPED / GRAPH).read_bytes()
    assert graphless.models.files(shipped) == {**old_files(), GRAPH: graph}
    assert recorded(graphless)[shipped] == artifact.digest(graph)
    saved = tmp_path / "saved"
    artifacts.write(graphless.models.files(shipped), saved)
    assert engines.load(saved, Options("openvino")).id == shipped


@pytest.mark.parametrize("name", ["dump.jsonl", "dump.jsonl.gz"])
def test_a_restored_database_has_the_graphs_and_their_hashes(
    graphless: Store, tmp_path: Path, name: str
) -> None:
    active, shipped = (model.id for model in graphless.models.all())
    before = recorded(graphless)
    assert before[active] is not None and before[shipped] is None
    dump.export(graphless, tmp_path / name, lambda count: None)
    with closing(Store(f"sqlite:///{tmp_path}/restored.db")) as restored:
        migrate(restored.database)
        restored.models.adopt("x", {artifact.CONFIG: b"{}", GRAPH: b"x"})
        dump.restore(restored, tmp_path / name, lambda count: None)
        assert recorded(restored) == before
        for id in (active, shipped):
            assert restored.models.files(id) == graphless.models.files(id)
        assert restored.models.add(shipped, artifacts.read(SHIPPED)) is False


def test_a_downgrade_keeps_everything_but_the_hashes_which_an_upgrade_computes_again(
    database_url: str,
) -> None:
    id = make_old_database(database_url)
    with closing(Store(database_url)) as store:
        migrate(store.database)
        files = artifacts.read(SHIPPED)
        store.models.adopt(id, files)
        OldModels(store).add("x", {artifact.CONFIG: b"{}"})
        before = recorded(store)
        kept = OldModels(store).all(), store.models.files(id), store.models.files("x")
        images = store.images.page(1000, 0)
        migrate(store.database, OLD_REVISION)
        columns = {column["name"] for column in sa.inspect(engine(store)).get_columns("models")}
        assert columns == {column.name for column in OldModels.models.c}
        assert kept == (OldModels(store).all(), store.models.files(id), store.models.files("x"))
        assert store.images.page(1000, 0) == images
        migrate(store.database)
        assert recorded(store) == before == {id: artifact.digest(files[GRAPH]), "x": None}
        assert store.models.adopt(id, files) == id


def engine(store: Store) -> sa.Engine:
    with store.database.read() as connection:
        return connection.engine


def test_models_are_posted_with_config_weights_and_graph(
    random_model: Path, database_url: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    id = make_artifact(other, seed=9, M=6)
    files = fields(other)

    def post(*parts: tuple[str, object], **changed: object) -> tuple[int, str, str]:
        whole = [*{**files, **changed}.items(), *parts]
        reply = server.http.post("/models", files=[part for part in whole if part[1] is not None])
        assert reply.headers["content-type"] == "application/problem+json", reply.text
        return reply.status_code, reply.json()["code"], reply.json()["detail"]

    with Server(tmp_path, model=random_model, database_url=database_url) as server:
        assert post(("graph", files["graph"])) == (
            400, "invalid-form", "Too many files. Maximum number of files is 3.",
        )  # fmt: skip
        assert post(("graph", files["graph"]), weights=None) == (
            422, "invalid-field", "graph: send at most one file part of that name",
        )  # fmt: skip
        as_text = server.http.post("/models", files=files | {"graph": (None, b"text")})
        assert (as_text.status_code, as_text.json()["code"]) == (422, "not-a-file")
        status, code, detail = post(graph=None)
        assert (status, code) == (422, "invalid-model")
        assert detail.startswith("network.onnx: the file is missing")
        status, code, detail = post(graph=b"not a graph")
        assert (status, code) == (422, "invalid-model")
        assert detail.startswith("network.onnx: not the graph that config.json names")
        # A graph that the checks refuse.
        config = json.loads(files["config"])
        del config["compute"]["graph"]
        graph = onnx.load_model_from_string(files["graph"])
        graph.graph.node[1].op_type = "Loop"
        status, code, detail = post(
            config=json.dumps(config).encode(), graph=graph.SerializeToString()
        )
        assert (status, code) == (422, "invalid-model")
        assert detail == "network.onnx: it uses the operator 'Loop', which is not allowed"
        added = server.http.post("/models", files=files)
        assert (added.status_code, added.json()["id"]) == (201, id)
        until(lambda: server.index(IMAGES[0].read_bytes()).status_code == 200)
        assert "Traceback" not in server.printed()
