"""The statements on replicas: which processes run, and what they have applied."""

from collections.abc import Iterable

import sqlalchemy as sa

from service.database import Database, now
from service.records import Replica
from service.schema import replicas
from service.settings import ALIVE_SECONDS

FORGET_REPLICA_SECONDS = 3600


class ReplicaStore:
    """Every method raises SQLAlchemyError where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def beat(self, name: str, applied: int, models: Iterable[str] = ()) -> None:
        """Say that the process ``name`` lives, what it has applied, of which models."""
        values = {"applied": applied, "models": " ".join(models), "seen": now()}
        with self.database.light_transaction() as connection:
            mine = sa.update(replicas).where(replicas.c.name == name).values(**values)
            if connection.execute(mine).rowcount == 0:
                connection.execute(sa.insert(replicas).values(name=name, **values))

    def leave(self, name: str) -> None:
        """Take back ``beat``, and that of processes long gone."""
        gone = (replicas.c.name == name) | (replicas.c.seen < now() - FORGET_REPLICA_SECONDS)
        with self.database.light_transaction() as connection:
            connection.execute(sa.delete(replicas).where(gone))

    def alive(self) -> list[Replica]:
        """The processes that were alive within ALIVE_SECONDS."""
        age = now() - replicas.c.seen
        query = sa.select(replicas.c.name, replicas.c.applied, replicas.c.models, age)
        # Ages below 0: the clock was set back.
        query = query.where(age.between(-ALIVE_SECONDS, ALIVE_SECONDS))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(replicas.c.name))
            return [
                Replica(name, applied, frozenset(held.split()), max(0.0, float(age)))
                for name, applied, held, age in rows
            ]
