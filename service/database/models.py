"""Reads and writes models: their files, which one is active, and the codes still missing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from gpq.model.artifact import digest
from gpq.model.graph import GRAPH
from service.database.engine import SEQS_IN_A_QUERY, Database
from service.database.records import MissingCode, StoredModel, active_of
from service.database.schema import artifacts, codes, images, models, state
from service.database.state import PREVIOUS_MODEL, RETIRED_MODELS, set_state
from service.errors import ModelError

SWEPT_CODES = 10_000  # codes deleted in one transaction

Files = Mapping[str, bytes]


class ModelTable:
    """The models table, the files of models, and the codes they lack.

    Every method raises SQLAlchemyError if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def all(self) -> tuple[StoredModel, ...]:
        """Returns the models in the order in which they were added."""
        with self.database.read() as connection:
            return all_models(connection)

    def get(self, id: str) -> StoredModel:
        """Returns a model. Raises ModelError if it does not exist."""
        with self.database.read() as connection:
            return _get(connection, id)

    def adopt(self, id: str, files: Files) -> str:
        """Makes a model the active one if the database holds no images; returns the active id.

        If the active model has that id and lacks its graph, it gets the one of ``files``. Raises
        ModelError if it has another graph.
        """

        def adopt(connection: Connection) -> str:
            known = all_models(connection)
            active = active_of(known)
            empty = connection.scalar(sa.select(images.c.id).limit(1)) is None
            if active is None or (empty and active != id):
                for model in known:
                    _forget(connection, model)
                active = id
                number = _insert(connection, id, active=True, complete=True)
            else:
                number = next(model.number for model in known if model.active)
            if active == id:
                keep_files(connection, number, files)
            return active

        return self.database.write(adopt)

    def add(self, id: str, files: Files) -> bool:
        """Adds a model: every later put must have a code of it.

        Returns False if the model existed and only got its graph. Raises ModelError if it exists
        and needs no graph.
        """

        def add(connection: Connection) -> bool:
            known = {model.id: model.number for model in all_models(connection)}
            if id in known:
                if not keep_files(connection, known[id], files):
                    raise ModelError(f"model {id} was added already")
                return False
            empty = connection.scalar(sa.select(images.c.id).limit(1)) is None
            keep_files(connection, _insert(connection, id, active=False, complete=empty), files)
            self.database.notify(connection)
            return True

        return self.database.write(add)

    def missing(self, number: int, after: int, limit: int) -> list[MissingCode]:
        """Returns images without a code of a model, in seq order, after seq ``after``."""
        query = sa.select(images.c.seq, images.c.id, images.c.sha256)
        query = query.where(images.c.seq > after, _lacks_code(number))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(images.c.seq).limit(limit))
            return [MissingCode(*row) for row in rows]

    def count_missing(self, number: int) -> int:
        """Counts the images without a code of a model."""
        with self.database.read() as connection:
            return _count_missing(connection, number)

    def fill(self, id: str, found: Mapping[int, bytes]) -> None:
        """Writes codes by seq, for images that still have that seq and lack a code.

        Raises ModelError if the model was deleted.
        """

        def fill(connection: Connection) -> None:
            number = _get(connection, id).number
            query = sa.select(images.c.seq).where(images.c.seq.in_(found), _lacks_code(number))
            rows = [
                {"model": number, "seq": seq, "code": found[seq]}
                for seq in connection.scalars(query)
            ]
            if rows:
                connection.execute(sa.insert(codes), rows)

        self.database.write(fill)

    def complete(self, id: str) -> bool:
        """Marks a model as complete if every image has a code of it; returns whether it is.

        Only images put before the model was added can lack a code, so that a complete model
        stays complete.
        """
        model = self.get(id)
        if model.complete or self.missing(model.number, 0, 1):
            return model.complete

        def complete(connection: Connection) -> None:
            _get(connection, id)
            change = sa.update(models).where(models.c.number == model.number)
            connection.execute(change.values(whole=True))
            self.database.notify(connection)

        self.database.write(complete)
        return True

    def activate(self, id: str) -> str:
        """Makes a model the active one, for all processes at once.

        Returns the id of the previously active model, or "".

        Raises ModelError if the model does not exist, or images have no code of it.
        """

        def activate(connection: Connection) -> str:
            model = _get(connection, id)
            if not model.complete:
                missing = _count_missing(connection, model.number)
                raise ModelError(
                    f"{missing} images have no code of model {id} yet: re-index first; post, "
                    "import or delete the images that the re-index lists as failures"
                )
            before = active_of(all_models(connection)) or ""
            if before != id:
                connection.execute(sa.update(models).values(active=models.c.id == id))
                set_state(connection, PREVIOUS_MODEL, before)
                self.database.notify(connection)
            return before

        return self.database.write(activate)

    def previous(self) -> str | None:
        """Returns the id of the previously active model; None if it was deleted, or none was."""
        query = sa.select(state.c.value).join(models, models.c.id == state.c.value)
        with self.database.read() as connection:
            return connection.scalar(query.where(state.c.name == PREVIOUS_MODEL))

    def ever_known(self, id: str) -> bool:
        """Returns whether the database holds a model, or held it before it was deleted."""
        with self.database.read() as connection:
            return id in {model.id for model in all_models(connection)} | _retired(connection)

    def delete(self, id: str) -> None:
        """Deletes a model; ``sweep`` deletes its codes. Raises ModelError for the active one."""

        def delete(connection: Connection) -> None:
            model = _get(connection, id)
            if model.active:
                raise ModelError(f"model {id} is active; activate another one first")
            connection.execute(sa.delete(artifacts).where(artifacts.c.model == model.number))
            connection.execute(sa.delete(models).where(models.c.number == model.number))
            retired = {*_retired(connection), id}
            set_state(connection, RETIRED_MODELS, " ".join(sorted(retired)))
            self.database.notify(connection)

        self.database.write(delete)

    def sweep(self) -> None:
        """Deletes the codes of deleted models, some at a time."""
        with self.database.read() as connection:
            known = {model.number for model in all_models(connection)}
            last = connection.scalar(sa.select(sa.func.max(codes.c.model))) or 0
            deleted = [number for number in range(1, last + 1) if number not in known]
            deleted = [number for number in deleted if connection.scalar(_first_code(number))]
        for number in deleted:
            some = sa.select(codes.c.seq).where(codes.c.model == number).limit(SWEPT_CODES)
            these = (codes.c.model == number) & codes.c.seq.in_(some)

            def sweep(connection: Connection, these: sa.ColumnElement[bool] = these) -> int:
                return int(connection.execute(sa.delete(codes).where(these)).rowcount)

            while self.database.write(sweep) == SWEPT_CODES:
                pass

    def files(self, id: str) -> dict[str, bytes]:
        """Returns the files of a model's artifact; empty if they are not kept."""
        query = sa.select(artifacts.c.name, artifacts.c.content)
        query = query.join(models, models.c.number == artifacts.c.model).where(models.c.id == id)
        with self.database.read() as connection:
            return {row.name: row.content for row in connection.execute(query)}


def all_models(connection: Connection) -> tuple[StoredModel, ...]:
    """Returns the models in the order in which they were added."""
    columns = models.c.number, models.c.id, models.c.active, models.c.whole, models.c.added
    query = sa.select(*columns).order_by(models.c.number)
    return tuple(StoredModel(*row) for row in connection.execute(query))


def remove_codes(
    connection: Connection, known: tuple[StoredModel, ...], seqs: Sequence[int]
) -> None:
    """Deletes the codes of ``seqs`` under every model."""
    by_model = codes.c.model.in_([model.number for model in known])
    for first in range(0, len(seqs), SEQS_IN_A_QUERY):
        part = seqs[first : first + SEQS_IN_A_QUERY]
        connection.execute(sa.delete(codes).where(by_model, codes.c.seq.in_(part)))


def fill_codes(
    connection: Connection, known: tuple[StoredModel, ...], found: Mapping[int, Mapping[str, bytes]]
) -> None:
    """Writes codes that stored images lack. ``found``: the code of each model id, by seq."""
    for model in known:
        if model.complete:
            continue
        query = sa.select(codes.c.seq).where(codes.c.model == model.number)
        present = set(connection.scalars(query.where(codes.c.seq.in_(found))))
        rows = [
            {"model": model.number, "seq": seq, "code": found[seq][model.id]}
            for seq in found.keys() - present
        ]
        if rows:
            connection.execute(sa.insert(codes), rows)


def _get(connection: Connection, id: str) -> StoredModel:
    for model in all_models(connection):
        if model.id == id:
            return model
    raise ModelError(f"there is no model {id}; see `python -m service models list`")


def _lacks_code(number: int) -> sa.ColumnElement[bool]:
    same = (codes.c.model == number) & (codes.c.seq == images.c.seq)
    return ~sa.exists().where(same)


def _count_missing(connection: Connection, number: int) -> int:
    query = sa.select(sa.func.count()).select_from(images).where(_lacks_code(number))
    return int(connection.scalar(query) or 0)


def _first_code(number: int) -> sa.Select[Any]:
    return sa.select(codes.c.seq).where(codes.c.model == number).limit(1)


def _retired(connection: Connection) -> set[str]:
    value = connection.scalar(sa.select(state.c.value).where(state.c.name == RETIRED_MODELS))
    return set((value or "").split())


def _insert(connection: Connection, id: str, *, active: bool, complete: bool) -> int:
    added = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    values = {"id": id, "active": active, "whole": complete, "added": added}
    insert = sa.insert(models).values(**values).returning(models.c.number)
    return int(connection.execute(insert).scalar_one())


def keep_files(connection: Connection, number: int, files: Files) -> bool:
    """Writes the files of a model that the database lacks; returns whether it lacked any.

    A model of an earlier version lacks only its graph. Raises ModelError if it has another graph:
    its codes could change, and the id of a model does not depend on a graph that was added later.
    """
    kept = set(connection.scalars(sa.select(artifacts.c.name).where(artifacts.c.model == number)))
    graph = files.get(GRAPH)
    if GRAPH in kept and graph is not None:
        query = sa.select(models.c.id, models.c.graph).where(models.c.number == number)
        id, recorded = connection.execute(query).one()
        if recorded != digest(graph):
            raise ModelError(
                f"the database has another {GRAPH} of model {id}, with which its codes may differ: "
                "use the folder that the model was added from, or write its files to a new folder "
                f"with `python -m service models save {id[:12]} FOLDER`"
            )
    missing = {name: content for name, content in files.items() if name not in kept}
    if kept:  # its config.json stays as it is, so that processes of earlier versions can read it
        missing = {name: content for name, content in missing.items() if name == GRAPH}
    if not missing:
        return False
    rows = [{"model": number, "name": n, "content": c} for n, c in missing.items()]
    connection.execute(sa.insert(artifacts), rows)
    if graph is not None:
        change = sa.update(models).where(models.c.number == number)
        connection.execute(change.values(graph=digest(graph)))
    return True


def _forget(connection: Connection, model: StoredModel) -> None:
    connection.execute(sa.delete(artifacts).where(artifacts.c.model == model.number))
    connection.execute(sa.delete(models).where(models.c.number == model.number))
    connection.execute(sa.delete(codes).where(codes.c.model == model.number))
