"""The statements on replicas: which processes run, and what they have applied."""

from collections.abc import Iterable

import sqlalchemy as sa

from service.database.engine import Database, now
from service.database.records import Replica
from service.database.schema import replicas
from service.settings import ALIVE_SECONDS

FORGET_REPLICA_SECONDS = 3600


class ReplicaStore:
    """Every method raises SQLAlchemyError where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def beat(
        self,
        name: str,
        applied: int,
        models: Iterable[str] = (),
        search_p99: float | None = None,
    ) -> None:
        """Say that the process ``name`` lives, what it has applied, of which models, and how long
        its searches take."""
        values = {
            "applied": applied, "models": " ".join(models), "search_p99": search_p99, "seen": now(),
        }  # fmt: skip
        with self.database.light_transaction() as connection:
            mine = sa.update(replicas).where(replicas.c.name == name).values(**values)
            if connection.execute(mine).rowcount == 0:
                connection.execute(sa.insert(replicas).values(name=name, **values))

    def leave(self, name: str) -> None:
        """Take back ``beat``, and that of processes long gone."""
        gone = (replicas.c.name == name) | (replicas.c.seen < now() - FORGET_REPLICA_SECONDS)
        with self.database.light_transaction() as connection:
            connection.execute(sa.delete(replicas).where(gone))

    def latencies(self) -> dict[str, float]:
        """The p99 of each living process that is searched, in seconds, by its name."""
        searched = ((replica.name, replica.search_p99) for replica in self.alive())
        return {name: p99 for name, p99 in searched if p99 is not None}

    def alive(self) -> list[Replica]:
        """The processes that were alive within ALIVE_SECONDS."""
        age = now() - replicas.c.seen
        said = replicas.c.name, replicas.c.applied, replicas.c.models, replicas.c.search_p99
        query = sa.select(*said, age)
        # Ages below 0: the clock was set back.
        query = query.where(age.between(-ALIVE_SECONDS, ALIVE_SECONDS))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(replicas.c.name))
            return [
                Replica(name, applied, frozenset(held.split()), p99, max(0.0, float(age)))
                for name, applied, held, p99, age in rows
            ]
