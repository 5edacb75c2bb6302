"""Reads and writes replicas: the processes that serve this database, and what they have applied."""

from collections.abc import Iterable

import sqlalchemy as sa

from service.database.engine import Database, now
from service.database.records import Replica
from service.database.schema import replicas

ALIVE_SECONDS = 5  # nobody waits for a replica whose heartbeat is older
FORGET_SECONDS = 3600  # a replica whose heartbeat is older is deleted


class ReplicaTable:
    """The replicas table.

    Every method raises SQLAlchemyError if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def beat(
        self,
        name: str,
        applied: int,
        models: Iterable[str] = (),
        search_p99: float | None = None,
    ) -> None:
        """Writes the heartbeat of the process ``name``: see ``Replica`` for its values."""
        values = {
            "applied": applied, "models": " ".join(models), "search_p99": search_p99, "seen": now(),
        }  # fmt: skip
        with self.database.heartbeat_transaction() as connection:
            mine = sa.update(replicas).where(replicas.c.name == name).values(**values)
            if connection.execute(mine).rowcount == 0:
                connection.execute(sa.insert(replicas).values(name=name, **values))

    def leave(self, name: str) -> None:
        """Deletes the process ``name``, and processes whose last heartbeat is long ago."""
        gone = (replicas.c.name == name) | (replicas.c.seen < now() - FORGET_SECONDS)
        with self.database.heartbeat_transaction() as connection:
            connection.execute(sa.delete(replicas).where(gone))

    def latencies(self) -> dict[str, float]:
        """Returns the search p99, in seconds, of each living process that is searched."""
        searched = ((replica.name, replica.search_p99) for replica in self.alive())
        return {name: p99 for name, p99 in searched if p99 is not None}

    def have_applied(self, seq: int) -> bool:
        """Returns whether every living process has reported that it has applied ``seq``."""
        return all(replica.applied >= seq for replica in self.alive())

    def alive(self) -> list[Replica]:
        """Returns the processes whose heartbeat is at most ALIVE_SECONDS old."""
        age = now() - replicas.c.seen
        columns = replicas.c.name, replicas.c.applied, replicas.c.models, replicas.c.search_p99
        query = sa.select(*columns, age)
        # A negative age means that the clock was set back.
        query = query.where(age.between(-ALIVE_SECONDS, ALIVE_SECONDS))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(replicas.c.name))
            return [
                Replica(name, applied, frozenset(held.split()), p99, max(0.0, float(age)))
                for name, applied, held, p99, age in rows
            ]
