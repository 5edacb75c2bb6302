"""The statements: all SQL on the tables is here. The database is the truth; everything in
memory follows it by the feed (see ``feed``).
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from service.database import Database, now
from service.records import (
    Change,
    Changes,
    Keep,
    Mark,
    OtherModel,
    Put,
    Replica,
    Resolved,
    Snapshot,
    Stored,
)
from service.schema import feed, images, replicas, state
from service.settings import ALIVE_SECONDS, FEED_PAGE, LOAD_ROWS

SEQS_IN_A_QUERY = 10_000  # SQLite takes 32,766 parameters
FORGET_REPLICA_SECONDS = 3600


class Store:
    """Reads are snapshots; writes are durable when they return.

    Every method raises SQLAlchemyError where the database does not answer.
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)

    def close(self) -> None:
        self.database.close()

    def adopt_model(self, model: str) -> str:
        """The id of the model the codes are of; ``model`` where there are no codes yet."""

        def adopt(connection: Connection) -> str:
            current = _state(connection).get("model")
            empty = connection.scalar(sa.select(images.c.id).limit(1)) is None
            if current is not None and not empty:
                return current
            _set_state(connection, "model", model)
            return model

        return self.database.write(adopt)

    def identity(self) -> str:
        """The name of this database, made up when it is asked for first."""

        def identify(connection: Connection) -> str:
            known = _state(connection).get("identity")
            if known is None:
                known = uuid.uuid4().hex
                _set_state(connection, "identity", known)
            return known

        return self.database.write(identify)

    def put(self, puts: Sequence[Put], model: str) -> list[Stored]:
        """Store pictures in one transaction, in order; ids are distinct.

        Same bytes and model keep their code and seq; only metadata may change. Raises
        OtherModel where another process made another model the active one.
        """
        return self.database.write(lambda connection: self._put(connection, puts, model))

    def describe(self, id: str, metadata: str | None) -> bool:
        """Give a picture other metadata; False where there is none."""
        update = sa.update(images).where(images.c.id == id).values(metadata=metadata)
        return self.database.write(lambda connection: connection.execute(update).rowcount == 1)

    def delete(self, id: str) -> int | None:
        """Take a picture out. Returns the feed number of that; None where there is none."""
        return self.database.write(lambda connection: self._delete(connection, id))

    def get(self, id: str) -> Row[Any] | None:
        """One picture's row."""
        with self.database.read() as connection:
            return connection.execute(sa.select(images).where(images.c.id == id)).one_or_none()

    def page(self, after: int, limit: int) -> Sequence[Row[Any]]:
        """Pictures' rows in seq order, from the first past ``after``."""
        query = sa.select(images).where(images.c.seq > after).order_by(images.c.seq).limit(limit)
        with self.database.read() as connection:
            return connection.execute(query).all()

    def resolve(self, seqs: Iterable[int], after: int) -> Resolved:
        """The pictures whose current codes have ``seqs``, or were put in after feed number
        ``after``, and the changes since then, of one moment."""
        with self.database.snapshot() as connection:
            page = _page_of_feed(connection, after, FEED_PAGE)
            values = _state(connection)
            removed = {change.removes for change in page}
            added = {change.seq for change in page if change.code is not None}
            wanted = sorted((added | set(seqs)) - removed)
            query = sa.select(images.c.seq, images.c.id, images.c.metadata)
            found: dict[int, tuple[str, str | None]] = {}
            for first in range(0, len(wanted), SEQS_IN_A_QUERY):
                part = wanted[first : first + SEQS_IN_A_QUERY]
                rows = connection.execute(query.where(images.c.seq.in_(part)))
                found |= {row.seq: (row.id, row.metadata) for row in rows}
        whole = len(page) < FEED_PAGE and int(values.get("pruned", 0)) <= after
        return Resolved(found, page, whole, values.get("model"))

    def changes_after(self, seq: int, limit: int = FEED_PAGE) -> Changes:
        """Feed rows after ``seq``, in order."""
        with self.database.read() as connection:
            page = _page_of_feed(connection, seq - 1, limit + 1)
            # Read after the changes, each statement sees what was committed before it: what
            # was pruned before them shows here, and whose codes they are was settled.
            values = _state(connection)
        last = None
        if page and page[0].seq == seq:
            last = Mark(seq, page.pop(0).created)
        return Changes(page[:limit], last, int(values.get("pruned", 0)), values.get("model"))

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """All codes, the feed's head and the active model, of one moment."""
        codes = sa.select(images.c.seq, images.c.code).order_by(images.c.seq)
        with self.database.snapshot() as connection:
            head, model = _head(connection), _state(connection).get("model")
            created = connection.scalar(sa.select(feed.c.created).where(feed.c.seq == head))
            parts = self.database.stream(connection, codes, LOAD_ROWS)
            yield Snapshot(Mark(head, created or 0.0), model, parts)

    def lag(self, applied: int) -> tuple[int, float]:
        """The feed's head, and for how many seconds the oldest change past ``applied`` waits."""
        oldest = sa.select(now() - feed.c.created).where(feed.c.seq > applied)
        with self.database.read() as connection:
            head = _head(connection)
            waiting = connection.scalar(oldest.order_by(feed.c.seq).limit(1))
        return head, max(0.0, float(waiting or 0))

    def prune(self, seconds: float) -> int:
        """Take changes older than ``seconds`` out of the feed, a page of them at most.

        Returns how many. A reader that had not seen them learns it by ``Changes.pruned``.
        """

        def prune(connection: Connection) -> int:
            page = sa.select(feed.c.seq, feed.c.created).order_by(feed.c.seq).limit(FEED_PAGE)
            limit = _now(connection) - seconds
            # A clock that was set back leaves a young row before old ones: keep from there.
            old = []
            for row in connection.execute(page):
                if row.created >= limit:
                    break
                old.append(row.seq)
            if old:
                connection.execute(sa.delete(feed).where(feed.c.seq <= old[-1]))
                _set_state(connection, "pruned", str(old[-1]))
            return len(old)

        return self.database.write(prune)

    def beat(self, name: str, applied: int) -> None:
        """Say that the process ``name`` lives and what it has applied."""
        values = {"applied": applied, "seen": now()}
        with self.database.light_transaction() as connection:
            mine = sa.update(replicas).where(replicas.c.name == name).values(**values)
            if connection.execute(mine).rowcount == 0:
                connection.execute(sa.insert(replicas).values(name=name, **values))

    def leave(self, name: str) -> None:
        """Take back ``beat``, and that of processes long gone."""
        gone = (replicas.c.name == name) | (replicas.c.seen < now() - FORGET_REPLICA_SECONDS)
        with self.database.light_transaction() as connection:
            connection.execute(sa.delete(replicas).where(gone))

    def replicas(self) -> list[Replica]:
        """The processes that were alive within ALIVE_SECONDS."""
        age = now() - replicas.c.seen
        query = sa.select(replicas.c.name, replicas.c.applied, age)
        # Ages below 0: the clock was set back.
        query = query.where(age.between(-ALIVE_SECONDS, ALIVE_SECONDS))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(replicas.c.name))
            return [Replica(name, applied, max(0.0, float(age))) for name, applied, age in rows]

    def counts(self) -> tuple[int, int, int]:
        """Pictures, distinct codes, and the most pictures that share one."""
        ties = sa.select(sa.func.count().label("n")).select_from(images).group_by(images.c.code)
        grouped = ties.subquery()
        query = sa.select(
            sa.func.coalesce(sa.func.sum(grouped.c.n), 0),
            sa.func.count(),
            sa.func.coalesce(sa.func.max(grouped.c.n), 0),
        ).select_from(grouped)
        with self.database.read() as connection:
            total, unique, largest = connection.execute(query).one()
        return int(total), int(unique), int(largest)

    def ids_of(self, sha256: str) -> set[str]:
        """Of the pictures that have these bytes."""
        with self.database.read() as connection:
            query = sa.select(images.c.id).where(images.c.sha256 == sha256)
            return set(connection.scalars(query))

    def originals_in_use(self, hashes: Sequence[str]) -> set[str]:
        """Those of ``hashes`` that some picture has as its bytes."""
        query = sa.select(images.c.sha256).where(images.c.sha256.in_(hashes))
        with self.database.read() as connection:
            return set(connection.scalars(query))

    def _put(self, connection: Connection, puts: Sequence[Put], model: str) -> list[Stored]:
        active = _state(connection).get("model")
        if active != model:
            raise OtherModel(f"the active model is {active}, not {model}")
        columns = images.c.id, images.c.seq, images.c.sha256, images.c.model, images.c.metadata
        rows = connection.execute(
            sa.select(*columns).where(images.c.id.in_([put.id for put in puts]))
        )
        existing: dict[str, Any] = {row.id: row for row in rows}
        changed = [put for put in puts if not _same_code(existing.get(put.id), put, model)]
        seqs = self._append(
            connection,
            [
                {"removes": existing[put.id].seq if put.id in existing else None, "code": put.code}
                for put in changed
            ],
        )
        new_seq = dict(zip([put.id for put in changed], seqs, strict=True))
        _replace(connection, changed, new_seq, model, existing)
        stored = []
        for put in puts:
            old = existing.get(put.id)
            if old is None:
                stored.append(Stored("created", new_seq[put.id]))
            elif put.id in new_seq:
                stored.append(Stored("replaced", new_seq[put.id]))
            elif isinstance(put.metadata, Keep) or put.metadata == old.metadata:
                stored.append(Stored("unchanged", old.seq))
            else:
                connection.execute(
                    sa.update(images).where(images.c.id == put.id).values(metadata=put.metadata)
                )
                stored.append(Stored("replaced", old.seq))
        return stored

    def _delete(self, connection: Connection, id: str) -> int | None:
        removed = connection.execute(
            sa.delete(images).where(images.c.id == id).returning(images.c.seq)
        ).scalar_one_or_none()
        if removed is None:
            return None
        return self._append(connection, [{"removes": removed, "code": None}])[0]

    def _append(self, connection: Connection, changes: list[dict[str, Any]]) -> list[int]:
        """Add feed rows and return their numbers, in order."""
        if not changes:
            return []
        self.database.notify(connection)
        created = _now(connection)
        inserted = sa.insert(feed).returning(feed.c.seq, sort_by_parameter_order=True)
        rows = [{**change, "created": created} for change in changes]
        return list(connection.scalars(inserted, rows))


def _state(connection: Connection) -> dict[str, str]:
    rows = connection.execute(sa.select(state.c.name, state.c.value))
    return {row.name: row.value for row in rows}


def _set_state(connection: Connection, name: str, value: str) -> None:
    connection.execute(sa.delete(state).where(state.c.name == name))
    connection.execute(sa.insert(state).values(name=name, value=value))


def _now(connection: Connection) -> float:
    return float(connection.scalars(sa.select(now())).one())


def _page_of_feed(connection: Connection, after: int, limit: int) -> list[Change]:
    query = sa.select(feed.c.seq, feed.c.removes, feed.c.code, feed.c.created)
    query = query.where(feed.c.seq > after)
    return [Change(*row) for row in connection.execute(query.order_by(feed.c.seq).limit(limit))]


def _head(connection: Connection) -> int:
    """The newest feed number ever committed, also when it is out of the feed again."""
    newest = sa.select(sa.func.max(feed.c.seq)).scalar_subquery()
    pruned = sa.select(sa.cast(state.c.value, sa.BigInteger)).where(state.c.name == "pruned")
    return int(
        connection.scalar(sa.select(sa.func.coalesce(newest, pruned.scalar_subquery(), 0))) or 0
    )


def _same_code(old: Any, put: Put, model: str) -> bool:
    return old is not None and (old.sha256, old.model) == (put.sha256, model)


def _replace(
    connection: Connection,
    puts: list[Put],
    seqs: dict[str, int],
    model: str,
    existing: dict[str, Any],
) -> None:
    if not puts:
        return
    created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rows = []
    for put in puts:
        kept = existing[put.id].metadata if put.id in existing else None
        rows.append(
            {
                "id": put.id,
                "seq": seqs[put.id],
                "model": model,
                "code": put.code,
                "sha256": put.sha256,
                "width": put.width,
                "height": put.height,
                "bytes": put.bytes,
                "created": created,
                "metadata": kept if isinstance(put.metadata, Keep) else put.metadata,
            }
        )
    connection.execute(
        sa.delete(images).where(images.c.id.in_([put.id for put in puts if put.id in existing]))
    )
    connection.execute(sa.insert(images), rows)
