"""The statements on models: which there are, their files, the codes that are still missing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from service.database.engine import Database
from service.database.records import ModelError, ModelRow, Put, active_of
from service.database.schema import artifacts, codes, images, models, state
from service.settings import SEQS_IN_A_QUERY

PREVIOUS = "previous_model"
RETIRED = "retired_models"  # ids with spaces between them
HISTORY = PREVIOUS, RETIRED
SWEPT_CODES = 10_000  # in a transaction

Files = Mapping[str, bytes]


class ModelStore:
    """Which models have codes, and which of them is active.

    Every method raises SQLAlchemyError where the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def all(self) -> tuple[ModelRow, ...]:
        """In the order they were added."""
        with self.database.read() as connection:
            return all_models(connection)

    def get(self, id: str) -> ModelRow:
        """Raises ModelError where there is no such one."""
        with self.database.read() as connection:
            return _row_of(connection, id)

    def adopt(self, id: str, files: Files) -> str:
        """The id of the active model; the one given where there are no pictures yet."""

        def adopt(connection: Connection) -> str:
            rows = all_models(connection)
            active = active_of(rows)
            empty = connection.scalar(sa.select(images.c.id).limit(1)) is None
            if active is None or (empty and active != id):
                for row in rows:
                    _forget(connection, row)
                active = id
                number = _insert(connection, id, active=True, whole=True)
            else:
                number = next(row.number for row in rows if row.active)
            if active == id:
                _keep_files(connection, number, files)
            return active

        return self.database.write(adopt)

    def add(self, id: str, files: Files) -> None:
        """Keep codes of another model from now on. Raises ModelError where it is there."""

        def add(connection: Connection) -> None:
            if id in {row.id for row in all_models(connection)}:
                raise ModelError(f"model {id} is there already")
            empty = connection.scalar(sa.select(images.c.id).limit(1)) is None
            _keep_files(connection, _insert(connection, id, active=False, whole=empty), files)
            self.database.notify(connection)

        self.database.write(add)

    def missing(self, number: int, after: int, limit: int) -> list[Row[Any]]:
        """Pictures without a code of a model, in seq order, from the first past ``after``."""
        query = sa.select(images.c.seq, images.c.id, images.c.sha256)
        query = query.where(images.c.seq > after, _has_no_code(number))
        with self.database.read() as connection:
            return list(connection.execute(query.order_by(images.c.seq).limit(limit)))

    def count_missing(self, number: int) -> int:
        """How many pictures have no code of a model."""
        with self.database.read() as connection:
            return _count_missing(connection, number)

    def fill(self, id: str, found: Mapping[int, bytes]) -> None:
        """Store codes of pictures by their seqs, where those are still theirs and have none.

        Raises ModelError where the model was taken out.
        """

        def fill(connection: Connection) -> None:
            number = _row_of(connection, id).number
            query = sa.select(images.c.seq).where(images.c.seq.in_(found), _has_no_code(number))
            rows = [
                {"model": number, "seq": seq, "code": found[seq]}
                for seq in connection.scalars(query)
            ]
            if rows:
                connection.execute(sa.insert(codes), rows)

        self.database.write(fill)

    def settle(self, id: str) -> bool:
        """Whether every picture has a code of the model; from then on it can be active.

        Pictures that lack one were put before it was added, so that once there are none,
        there are none later.
        """
        row = self.get(id)
        if row.whole or self.missing(row.number, 0, 1):
            return row.whole

        def settle(connection: Connection) -> None:
            _row_of(connection, id)
            change = sa.update(models).where(models.c.number == row.number)
            connection.execute(change.values(whole=True))
            self.database.notify(connection)

        self.database.write(settle)
        return True

    def activate(self, id: str) -> str:
        """Make it the model of all searches, at once and everywhere; the one before is returned.

        Raises ModelError where it is not there, or pictures have no code of it.
        """

        def activate(connection: Connection) -> str:
            row = _row_of(connection, id)
            if not row.whole:
                missing = _count_missing(connection, row.number)
                raise ModelError(
                    f"{missing} pictures have no code of model {id} yet: re-index first; those "
                    "that its job names as failures, post or import again, or delete"
                )
            before = active_of(all_models(connection)) or ""
            if before != id:
                connection.execute(sa.update(models).values(active=models.c.id == id))
                _set_state(connection, PREVIOUS, before)
                self.database.notify(connection)
            return before

        return self.database.write(activate)

    def previous(self) -> str | None:
        """The model that was active before the one that is; None where it is gone."""
        query = sa.select(state.c.value).join(models, models.c.id == state.c.value)
        with self.database.read() as connection:
            return connection.scalar(query.where(state.c.name == PREVIOUS))

    def ever_known(self, id: str) -> bool:
        """Whether it has codes here, or had and was taken out."""
        with self.database.read() as connection:
            return id in {row.id for row in all_models(connection)} | _retired(connection)

    def remove(self, id: str) -> None:
        """Take out a model; its codes are left to ``sweep``. Raises ModelError for the active
        one."""

        def remove(connection: Connection) -> None:
            row = _row_of(connection, id)
            if row.active:
                raise ModelError(f"model {id} is the active one")
            connection.execute(sa.delete(artifacts).where(artifacts.c.model == row.number))
            connection.execute(sa.delete(models).where(models.c.number == row.number))
            _set_state(connection, RETIRED, " ".join(sorted({*_retired(connection), id})))
            self.database.notify(connection)

        self.database.write(remove)

    def sweep(self) -> None:
        """Take out the codes of models that are gone, some at a time."""
        with self.database.read() as connection:
            known = {row.number for row in all_models(connection)}
            last = connection.scalar(sa.select(sa.func.max(codes.c.model))) or 0
            gone = [number for number in range(1, last + 1) if number not in known]
            gone = [number for number in gone if connection.scalar(_first_code(number))]
        for number in gone:
            some = sa.select(codes.c.seq).where(codes.c.model == number).limit(SWEPT_CODES)
            these = (codes.c.model == number) & codes.c.seq.in_(some)

            def sweep(connection: Connection, these: sa.ColumnElement[bool] = these) -> int:
                return int(connection.execute(sa.delete(codes).where(these)).rowcount)

            while self.database.write(sweep) == SWEPT_CODES:
                pass

    def files(self, id: str) -> dict[str, bytes]:
        """The files of a model's artifact; none where it is not known, or they were not kept."""
        query = sa.select(artifacts.c.name, artifacts.c.content)
        query = query.join(models, models.c.number == artifacts.c.model).where(models.c.id == id)
        with self.database.read() as connection:
            return {row.name: row.content for row in connection.execute(query)}


def all_models(connection: Connection) -> tuple[ModelRow, ...]:
    """In the order they were added."""
    columns = models.c.number, models.c.id, models.c.active, models.c.whole, models.c.added
    query = sa.select(*columns).order_by(models.c.number)
    return tuple(ModelRow(*row) for row in connection.execute(query))


def remove_codes(connection: Connection, rows: tuple[ModelRow, ...], seqs: Sequence[int]) -> None:
    """Of pictures that were put as ``seqs`` and are gone, by every model."""
    of_models = codes.c.model.in_([row.number for row in rows])
    for first in range(0, len(seqs), SEQS_IN_A_QUERY):
        part = seqs[first : first + SEQS_IN_A_QUERY]
        connection.execute(sa.delete(codes).where(of_models, codes.c.seq.in_(part)))


def fill_codes(
    connection: Connection,
    rows: tuple[ModelRow, ...],
    existing: dict[str, Any],
    puts: Sequence[Put],
) -> None:
    """Of pictures that are there, by models that were added since."""
    for row in rows:
        if row.whole:
            continue
        of_seq = {existing[put.id].seq: put.codes[row.id] for put in puts}
        known = sa.select(codes.c.seq).where(codes.c.model == row.number, codes.c.seq.in_(of_seq))
        lacking = of_seq.keys() - set(connection.scalars(known))
        if lacking:
            values = [{"model": row.number, "seq": s, "code": of_seq[s]} for s in lacking]
            connection.execute(sa.insert(codes), values)


def _row_of(connection: Connection, id: str) -> ModelRow:
    for row in all_models(connection):
        if row.id == id:
            return row
    raise ModelError(f"there is no model {id}; see `python -m service models list`")


def _has_no_code(number: int) -> sa.ColumnElement[bool]:
    same = (codes.c.model == number) & (codes.c.seq == images.c.seq)
    return ~sa.exists().where(same)


def _count_missing(connection: Connection, number: int) -> int:
    query = sa.select(sa.func.count()).select_from(images).where(_has_no_code(number))
    return int(connection.scalar(query) or 0)


def _first_code(number: int) -> sa.Select[Any]:
    return sa.select(codes.c.seq).where(codes.c.model == number).limit(1)


def _retired(connection: Connection) -> set[str]:
    value = connection.scalar(sa.select(state.c.value).where(state.c.name == RETIRED))
    return set((value or "").split())


def _set_state(connection: Connection, name: str, value: str) -> None:
    connection.execute(sa.delete(state).where(state.c.name == name))
    connection.execute(sa.insert(state).values(name=name, value=value))


def _insert(connection: Connection, id: str, *, active: bool, whole: bool) -> int:
    added = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    values = {"id": id, "active": active, "whole": whole, "added": added}
    insert = sa.insert(models).values(**values).returning(models.c.number)
    return int(connection.execute(insert).scalar_one())


def _keep_files(connection: Connection, number: int, files: Files) -> None:
    kept = sa.select(artifacts.c.name).where(artifacts.c.model == number).limit(1)
    if connection.scalar(kept) is None:
        rows = [{"model": number, "name": n, "content": c} for n, c in files.items()]
        connection.execute(sa.insert(artifacts), rows)


def _forget(connection: Connection, row: ModelRow) -> None:
    connection.execute(sa.delete(artifacts).where(artifacts.c.model == row.number))
    connection.execute(sa.delete(models).where(models.c.number == row.number))
    connection.execute(sa.delete(codes).where(codes.c.model == row.number))
