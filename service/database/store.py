"""What is written of pictures and the feed; what is read in ``reader``, others in ``modelstore``,
``replicastore`` and ``jobstore``. The database is the truth; everything in memory follows it by
the feed (see ``feed``).
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from service.database.engine import Database, now
from service.database.jobs import JobStore
from service.database.models import ModelStore, all_models, fill_codes, remove_codes
from service.database.reader import Reader, all_state
from service.database.records import Keep, OtherModel, Put, Stored
from service.database.replicas import ReplicaStore
from service.database.schema import codes, feed, images, state
from service.settings import FEED_PAGE


class Store:
    """Writes are durable when they return.

    Every method raises SQLAlchemyError where the database does not answer.
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.reader = Reader(self.database)
        self.models = ModelStore(self.database)
        self.replicas = ReplicaStore(self.database)
        self.jobs = JobStore(self.database)

    def close(self) -> None:
        self.database.close()

    def identity(self) -> str:
        """The name of this database, made up when it is asked for first."""

        def identify(connection: Connection) -> str:
            known = all_state(connection).get("identity")
            if known is None:
                known = uuid.uuid4().hex
                _set_state(connection, "identity", known)
            return known

        return self.database.write(identify)

    def put(self, puts: Sequence[Put]) -> list[Stored]:
        """Store pictures in one transaction, in order; ids are distinct.

        Same bytes keep their codes and seq; only metadata may change. Raises OtherModel where
        the database wants codes of other models than these are of.
        """
        return self.database.write(lambda connection: self._put(connection, puts))

    def describe(self, id: str, metadata: str | None) -> bool:
        """Give a picture other metadata; False where there is none."""
        update = sa.update(images).where(images.c.id == id).values(metadata=metadata)
        return self.database.write(lambda connection: connection.execute(update).rowcount == 1)

    def delete(self, id: str) -> int | None:
        """Take a picture out. Returns the feed number of that; None where there is none."""
        return self.database.write(lambda connection: self._delete(connection, id))

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

    def _put(self, connection: Connection, puts: Sequence[Put]) -> list[Stored]:
        rows = all_models(connection)
        wanted = {row.id for row in rows}
        for put in puts:
            if put.codes.keys() != wanted:
                raise OtherModel(f"codes are kept of models {sorted(wanted)}, not {[*put.codes]}")
        columns = images.c.id, images.c.seq, images.c.sha256, images.c.metadata
        found = connection.execute(
            sa.select(*columns).where(images.c.id.in_([put.id for put in puts]))
        )
        existing: dict[str, Any] = {row.id: row for row in found}
        changed = [put for put in puts if not _same_bytes(existing.get(put.id), put)]
        replaced = [existing[put.id].seq for put in changed if put.id in existing]
        seqs = self._append(
            connection,
            [existing[put.id].seq if put.id in existing else None for put in changed],
        )
        new_seq = dict(zip([put.id for put in changed], seqs, strict=True))
        _replace(connection, changed, new_seq, existing)
        remove_codes(connection, rows, replaced)
        if changed:
            numbers = {row.id: row.number for row in rows}
            connection.execute(
                sa.insert(codes),
                [
                    {"model": numbers[model], "seq": new_seq[put.id], "code": code}
                    for put in changed
                    for model, code in put.codes.items()
                ],
            )
        if not all(row.whole for row in rows):
            fill_codes(connection, rows, existing, [p for p in puts if p.id not in new_seq])
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
        remove_codes(connection, all_models(connection), [removed])
        return self._append(connection, [removed])[0]

    def _append(self, connection: Connection, removes: list[int | None]) -> list[int]:
        """Add feed rows and return their numbers, in order."""
        if not removes:
            return []
        self.database.notify(connection)
        created = _now(connection)
        inserted = sa.insert(feed).returning(feed.c.seq, sort_by_parameter_order=True)
        rows = [{"removes": removed, "created": created} for removed in removes]
        return list(connection.scalars(inserted, rows))


def _set_state(connection: Connection, name: str, value: str) -> None:
    connection.execute(sa.delete(state).where(state.c.name == name))
    connection.execute(sa.insert(state).values(name=name, value=value))


def _now(connection: Connection) -> float:
    return float(connection.scalars(sa.select(now())).one())


def _same_bytes(old: Any, put: Put) -> bool:
    return old is not None and old.sha256 == put.sha256


def _replace(
    connection: Connection, puts: list[Put], seqs: dict[str, int], existing: dict[str, Any]
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
                "sha256": put.sha256,
                "width": put.width,
                "height": put.height,
                "bytes": put.bytes,
                "created": created,
                "metadata": kept if isinstance(put.metadata, Keep) else put.metadata,
            }
        )
    if replaced := [put.id for put in puts if put.id in existing]:
        connection.execute(sa.delete(images).where(images.c.id.in_(replaced)))
    connection.execute(sa.insert(images), rows)
