"""Reads and writes the state table: names and values that all processes share."""

import secrets
import uuid

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.database.engine import Database, now
from service.database.schema import state

IDENTITY = "identity"  # a random name of the database
PRUNED = "pruned"  # the newest number removed from the feed
CURSOR_KEY = "cursor_key"  # signs the cursors of searches
FIELDS_SEQ = "filter_fields_seq"  # the newest change that the values of filter fields reflect
COPY_FILLER = "copy_filler"  # the process that computes missing hashes, and until when
COPY_GROUPS_JOB = "copy_groups_job"  # the job whose groups of copies are current
PREVIOUS_MODEL = "previous_model"  # the model that was active before
RETIRED_MODELS = "retired_models"  # ids of deleted models, separated by spaces
MODEL_HISTORY = PREVIOUS_MODEL, RETIRED_MODELS


class StateTable:
    """The state table.

    Every method raises SQLAlchemyError if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def identity(self) -> str:
        """Returns the name of this database; the first call creates it."""

        def identify(connection: Connection) -> str:
            known = all_state(connection).get(IDENTITY)
            if known is None:
                known = uuid.uuid4().hex
                set_state(connection, IDENTITY, known)
            return known

        return self.database.write(identify)

    def cursor_key(self) -> bytes:
        """Returns the key that signs cursors; the first call creates it."""

        def create(connection: Connection) -> str:
            known = all_state(connection).get(CURSOR_KEY)
            if known is None:
                known = secrets.token_hex(32)
                set_state(connection, CURSOR_KEY, known)
            return known

        return bytes.fromhex(self.database.write(create))

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Returns whether a process may do what only one does at a time, for some seconds.

        ``owner``: its name; the one that has the lease may renew it.
        """

        def lease(connection: Connection) -> bool:
            time = float(connection.scalars(sa.select(now())).one())
            holder, _, until = all_state(connection).get(name, "").rpartition(" ")
            if holder not in ("", owner) and time < float(until):
                return False
            set_state(connection, name, f"{owner} {time + seconds}")
            return True

        return self.database.write(lease)


def all_state(connection: Connection) -> dict[str, str]:
    """Returns every value by its name."""
    rows = connection.execute(sa.select(state.c.name, state.c.value))
    return {row.name: row.value for row in rows}


def set_state(connection: Connection, name: str, value: str) -> None:
    connection.execute(sa.delete(state).where(state.c.name == name))
    connection.execute(sa.insert(state).values(name=name, value=value))


def pruned_seq() -> sa.Select[int]:
    """Selects the newest number removed from the feed; no row if none was."""
    return sa.select(sa.cast(state.c.value, sa.BigInteger)).where(state.c.name == PRUNED)
