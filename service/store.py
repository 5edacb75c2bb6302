"""The database: all SQL is here. It is the truth; everything in memory follows it.

Writers take a lock before their first statement (SQLite: BEGIN IMMEDIATE, Postgres: an
advisory lock), so feed numbers are handed out in commit order: a reader that has seen
seq n never meets a smaller one later.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection, Engine, Row

import migrations
from service.schema import feed, images, state
from service.settings import SQLITE_BUSY_SECONDS

WRITE_LOCK = 0x6770_7131  # the key of Postgres's advisory lock
LOAD_ROWS = 50_000  # codes fetched at a time at start
POOL_CONNECTIONS = 20  # kept open; as many again on demand

Status = Literal["created", "replaced", "unchanged"]


class Keep:
    """Metadata that was not given: keep what is there."""


KEEP = Keep()


@dataclass(frozen=True)
class Put:
    """One picture to store. metadata: JSON text, None to clear, KEEP to leave as it is."""

    id: str
    code: bytes
    sha256: str
    width: int
    height: int
    bytes: int
    metadata: str | Keep | None


class OtherModel(Exception):
    """The database holds codes of another model than the caller's."""


@dataclass(frozen=True)
class Change:
    """One feed row: the seq taken out, if any, and the code put in as ``seq``, if any."""

    seq: int
    removes: int | None
    code: bytes | None


class Store:
    """Reads are snapshots; writes are durable when they return."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(sa.make_url(url))
        self.is_postgres = self.engine.dialect.name == "postgresql"
        # Writers queue here, not on a connection each: readers always find one.
        self._writing = threading.Lock()

    def close(self) -> None:
        self.engine.dispose()

    def migrate(self) -> None:
        """Bring the schema to this version's; one process at a time does it."""
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        with self._write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def adopt_model(self, model: str) -> str:
        """The id of the model the codes are of; ``model`` where there are no codes yet."""
        with self._write() as connection:
            current = _active_model(connection)
            empty = connection.scalar(sa.select(images.c.id).limit(1)) is None
            if current is not None and not empty:
                return current
            connection.execute(sa.delete(state).where(state.c.name == "model"))
            connection.execute(sa.insert(state).values(name="model", value=model))
            return model

    def active_model(self) -> str | None:
        """The id of the model the stored codes are of."""
        with self.engine.begin() as connection:
            return _active_model(connection)

    def put(self, puts: Sequence[Put], model: str) -> list[Status]:
        """Store pictures in one transaction, in order; ids are distinct.

        Same bytes and model keep their code and seq; only metadata may change. Raises
        OtherModel where another process made another model the active one.
        """
        with self._write() as connection:
            active = _active_model(connection)
            if active != model:
                raise OtherModel(f"the active model is {active}, not {model}")
            rows = connection.execute(
                sa.select(
                    images.c.id, images.c.seq, images.c.sha256, images.c.model, images.c.metadata
                ).where(images.c.id.in_([put.id for put in puts]))
            )
            existing = {row.id: row for row in rows}
            same = [
                (old := existing.get(put.id)) is not None
                and (old.sha256, old.model) == (put.sha256, model)
                for put in puts
            ]
            changed = [put for put, unchanged in zip(puts, same, strict=True) if not unchanged]
            seqs = _append(
                connection,
                [
                    {"removes": existing[p.id].seq if p.id in existing else None, "code": p.code}
                    for p in changed
                ],
            )
            _upsert(connection, changed, seqs, model, existing)
            metadata_changed = [
                put
                for put, unchanged in zip(puts, same, strict=True)
                if unchanged and put.metadata not in (KEEP, existing[put.id].metadata)
            ]
            for put in metadata_changed:
                connection.execute(
                    sa.update(images).where(images.c.id == put.id).values(metadata=put.metadata)
                )
            replaced = {put.id for put in changed if put.id in existing}
            replaced |= {put.id for put in metadata_changed}
        return [
            "created"
            if put.id not in existing
            else ("replaced" if put.id in replaced else "unchanged")
            for put in puts
        ]

    def delete(self, id: str) -> bool:
        """Take a picture out; False where there is none."""
        with self._write() as connection:
            removed = connection.execute(
                sa.delete(images).where(images.c.id == id).returning(images.c.seq)
            ).scalar_one_or_none()
            if removed is None:
                return False
            _append(connection, [{"removes": removed, "code": None}])
        return True

    def get(self, id: str) -> Row[Any] | None:
        """One picture's row."""
        with self.engine.begin() as connection:
            return connection.execute(sa.select(images).where(images.c.id == id)).one_or_none()

    def by_seq(self, seqs: Sequence[int]) -> dict[int, tuple[str, str | None]]:
        """seq -> (id, metadata) of the pictures whose current code has that seq."""
        query = sa.select(images.c.seq, images.c.id, images.c.metadata)
        with self.engine.begin() as connection:
            rows = connection.execute(query.where(images.c.seq.in_(seqs)))
            return {row.seq: (row.id, row.metadata) for row in rows}

    def changes_after(self, seq: int, limit: int) -> list[Change]:
        """Feed rows after ``seq``, in order."""
        query = sa.select(feed).where(feed.c.seq > seq).order_by(feed.c.seq).limit(limit)
        with self.engine.begin() as connection:
            return [Change(row.seq, row.removes, row.code) for row in connection.execute(query)]

    @contextmanager
    def snapshot(self) -> Iterator[tuple[int, Iterator[list[tuple[int, bytes]]]]]:
        """The feed's head and all (seq, code) in seq order, in lists, of one moment."""
        with self.engine.connect() as connection:
            if self.is_postgres:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                head = _head(connection)
                codes = connection.execution_options(yield_per=LOAD_ROWS).execute(
                    sa.select(images.c.seq, images.c.code).order_by(images.c.seq)
                )
                yield head, ([(row[0], row[1]) for row in part] for part in codes.partitions())

    def head(self) -> int:
        """The newest feed number, 0 for none."""
        with self.engine.begin() as connection:
            return _head(connection)

    def counts(self) -> tuple[int, int, int]:
        """Pictures, distinct codes, and the most pictures that share one."""
        ties = sa.select(sa.func.count().label("n")).select_from(images).group_by(images.c.code)
        grouped = ties.subquery()
        query = sa.select(
            sa.func.coalesce(sa.func.sum(grouped.c.n), 0),
            sa.func.count(),
            sa.func.coalesce(sa.func.max(grouped.c.n), 0),
        ).select_from(grouped)
        with self.engine.begin() as connection:
            total, unique, largest = connection.execute(query).one()
        return int(total), int(unique), int(largest)

    def originals_in_use(self, hashes: Sequence[str]) -> set[str]:
        """Those of ``hashes`` that some picture has as its bytes."""
        query = sa.select(images.c.sha256).where(images.c.sha256.in_(hashes))
        with self.engine.begin() as connection:
            return set(connection.scalars(query))

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        writers = self.engine.execution_options(gpq_write=True)
        with self._writing, writers.begin() as connection:
            if self.is_postgres:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITE_LOCK)))
            yield connection


def _active_model(connection: Connection) -> str | None:
    value: str | None = connection.scalar(sa.select(state.c.value).where(state.c.name == "model"))
    return value


def _head(connection: Connection) -> int:
    return int(connection.scalar(sa.select(sa.func.coalesce(sa.func.max(feed.c.seq), 0))) or 0)


def _append(connection: Connection, changes: list[dict[str, Any]]) -> list[int]:
    """Add feed rows and return their numbers, in order."""
    if not changes:
        return []
    inserted = sa.insert(feed).returning(feed.c.seq, sort_by_parameter_order=True)
    return list(connection.scalars(inserted, changes))


def _upsert(
    connection: Connection,
    puts: list[Put],
    seqs: list[int],
    model: str,
    existing: dict[str, Any],
) -> None:
    if not puts:
        return
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    rows = []
    for put, seq in zip(puts, seqs, strict=True):
        kept = existing[put.id].metadata if put.id in existing else None
        rows.append(
            {
                "id": put.id,
                "seq": seq,
                "model": model,
                "code": put.code,
                "sha256": put.sha256,
                "width": put.width,
                "height": put.height,
                "bytes": put.bytes,
                "created": now,
                "metadata": kept if isinstance(put.metadata, Keep) else put.metadata,
            }
        )
    connection.execute(
        sa.delete(images).where(images.c.id.in_([p.id for p in puts if p.id in existing]))
    )
    connection.execute(sa.insert(images), rows)


def _engine(url: sa.URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_size=POOL_CONNECTIONS,
            max_overflow=POOL_CONNECTIONS,
        )
    if url.get_backend_name() != "sqlite":
        raise ValueError(
            f"GPQ_DATABASE_URL: {url.get_backend_name()} is neither sqlite nor postgresql"
        )
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        url,
        connect_args={"timeout": SQLITE_BUSY_SECONDS},
        pool_size=POOL_CONNECTIONS,
        max_overflow=POOL_CONNECTIONS,
    )
    sa.event.listen(engine, "connect", _sqlite_connect)
    sa.event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: Any, record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours, see _sqlite_begin
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: Connection) -> None:
    """A deferred BEGIN that turns into a write fails at once as locked; writers ask first."""
    write = connection.get_execution_options().get("gpq_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
