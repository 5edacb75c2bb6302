"""Connects to the database: read transactions, snapshots, and one queue of writers.

The statements are in the other modules of this package. ``service.index.follower`` says why all
writers take turns.
"""

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles

from service.settings import DATABASE_STALL_SECONDS, DATABASE_THREADS, IMAGE_THREADS

WRITE_LOCK = 0x6770_7131  # the key of Postgres's advisory lock
CHANNEL = "gpq_feed"  # the channel of LISTEN and NOTIFY
# One for each request thread and one for scans; heartbeats and LISTEN have their own.
POOL_CONNECTIONS = IMAGE_THREADS + DATABASE_THREADS + 1
CONNECT_SECONDS = 5  # how long a new connection to Postgres may take
HEARTBEAT_WRITE_SECONDS = 2  # how long a heartbeat waits for other writes
WRITES_IN_A_COMMIT = 64  # requests that share one commit, at most
SEQS_IN_A_QUERY = 10_000  # SQLite accepts 32,766 parameters

R = TypeVar("R")


class now(sa.sql.expression.FunctionElement[float]):  # noqa: N801
    """Seconds since the epoch by the database's clock, which all processes share."""

    inherit_cache = True
    type = sa.Double()


@compiles(now, "postgresql")
def _now_postgres(element: now, compiler: Any, **_: Any) -> str:
    return "extract(epoch from clock_timestamp())"


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


class Database:
    """A SQLite or Postgres database. Raises ValueError for the URL of another kind.

    Every method raises SQLAlchemyError if the database does not answer.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(sa.make_url(url), durable=True)
        self._heartbeats = _engine(sa.make_url(url), durable=False)
        self.is_postgres = self._engine.dialect.name == "postgresql"
        single = {"isolation_level": "AUTOCOMMIT"} if self.is_postgres else {"gpq_no_begin": True}
        self._autocommit = self._engine.execution_options(**single)
        # Writers wait here and hold no connection, so that readers always find one.
        self._waiting: deque[_Write[Any]] = deque()
        self._committing = False  # whether some thread commits, or is about to
        self._changing = threading.Lock()
        self._writing = threading.Lock()  # held by a transaction; on SQLite by heartbeats too
        self._listener: psycopg.Connection | None = None

    def close(self) -> None:
        """Closes all connections. No other call may be running."""
        self._drop_listener()
        self._engine.dispose()
        self._heartbeats.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Opens a transaction that only reads."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def statement(self) -> Iterator[Connection]:
        """Opens a connection for one statement that reads, without a transaction around it."""
        with self._autocommit.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Opens a read transaction that sees one moment, however long it lasts."""
        with self._engine.connect() as connection:
            if self.is_postgres:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def stream(
        self, connection: Connection, query: sa.Select[Any], rows: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yields the rows of a query without parameters, ``rows`` at a time.

        The rows are the driver's plain tuples: reading a million of them takes a fifth of the
        time that SQLAlchemy's Row objects take.
        """
        driver: Any = connection.connection.driver_connection
        text = str(query.compile(dialect=connection.dialect))
        try:
            cursor = driver.cursor(name="gpq", binary=True) if self.is_postgres else driver.cursor()
            with closing(cursor):
                cursor.execute(text)
                while part := cursor.fetchmany(rows):
                    yield part
        except (psycopg.Error, sqlite3.Error) as error:
            raise OperationalError(text, None, error) from error

    def write(self, work: Callable[[Connection], R]) -> R:
        """Runs ``work`` in a write transaction and returns its result once that is durable.

        Writes that arrive during a commit share the next commit and its fsync: the thread of the
        oldest write commits for all of them. A write whose statements fail does not fail the
        others. ``work`` may run again after a rollback.
        """
        mine = _Write(work)
        with self._changing:
            self._waiting.append(mine)
            wait, self._committing = self._committing, True
        if wait:
            mine.turn.wait()
        if not mine.outcome.done():
            try:
                with self._writing:
                    self._commit(self._take())
            finally:
                self._hand_over()
        return mine.outcome.result()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Opens a write transaction. It holds the write lock that all processes share."""
        writers = self._engine.execution_options(gpq_write=True)
        with writers.begin() as connection:
            if self.is_postgres:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITE_LOCK)))
            yield connection

    @contextmanager
    def heartbeat_transaction(self) -> Iterator[Connection]:
        """Opens a write transaction outside the queue, which a crash may undo: for heartbeats."""
        # SQLite has one lock for all writes; waiting for it here costs less than busy retries.
        queued = not self.is_postgres
        if queued and not self._writing.acquire(timeout=HEARTBEAT_WRITE_SECONDS):
            raise sa.exc.TimeoutError("other writes took too long")
        try:
            with self._heartbeats.execution_options(gpq_write=True).begin() as connection:
                yield connection
        finally:
            if queued:
                self._writing.release()

    def copy_to(self, path: Path) -> None:
        """Copies a SQLite database, as it is at one moment, to a new file while it is in use.

        Raises OperationalError if the copy cannot be written.
        """
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("VACUUM INTO ?", (str(path),))
        except sqlite3.Error as error:
            raise OperationalError("VACUUM INTO", None, error) from error
        finally:
            connection.close()

    def notify(self, connection: Connection) -> None:
        """Wakes the processes that ``wait`` as soon as this transaction is committed."""
        if self.is_postgres:
            connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))

    def wait(self, seconds: float) -> None:
        """Waits ``seconds``; on Postgres, less if NOTIFY announces a commit."""
        if not self.is_postgres:
            time.sleep(seconds)
            return
        try:
            self._listener = self._listener or self._listen()
            list(self._listener.notifies(timeout=seconds, stop_after=1))
        except psycopg.Error:  # down, or behind a pooler that cannot LISTEN: poll
            self._drop_listener()
            time.sleep(seconds)

    def _take(self) -> list["_Write[Any]"]:
        """Returns the oldest writes; the first is that of this thread."""
        with self._changing:
            count = min(len(self._waiting), WRITES_IN_A_COMMIT)
            return [self._waiting.popleft() for _ in range(count)]

    def _hand_over(self) -> None:
        with self._changing:
            if self._waiting:
                self._waiting[0].turn.set()
            else:
                self._committing = False

    def _commit(self, writes: list["_Write[Any]"]) -> None:
        """Commits the writes together; if one of them fails, commits the others without it."""
        results: list[Any] = []
        running: _Write[Any] | None = None
        try:
            with self.transaction() as connection:
                for running in writes:
                    results.append(running.work(connection))  # noqa: PERF401
                running = None
        except BaseException as error:  # KeyboardInterrupt too: other threads wait for a result
            lost = isinstance(error, DBAPIError) and error.connection_invalidated
            failed = writes if running is None or lost else [running]
            for write in failed:
                write.fail(error)
            rest = [write for write in writes if write not in failed]
            if rest:
                self._commit(rest)
        else:
            for write, result in zip(writes, results, strict=True):
                write.succeed(result)

    def _listen(self) -> psycopg.Connection:
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        connection = psycopg.connect(*arguments, **(_POSTGRES | dict(options)), autocommit=True)
        connection.execute(f"LISTEN {CHANNEL}")
        return connection

    def _drop_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


class _Write(Generic[R]):
    """A write that waits. ``turn`` is set once it is done, or its thread must commit for others."""

    def __init__(self, work: Callable[[Connection], R]) -> None:
        self.work = work
        self.outcome: Future[R] = Future()
        self.turn = threading.Event()

    def succeed(self, result: R) -> None:
        self.outcome.set_result(result)
        self.turn.set()

    def fail(self, error: BaseException) -> None:
        self.outcome.set_exception(error)
        self.turn.set()


# Without these, a connection that is lost silently would block a request for ever.
_POSTGRES: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": DATABASE_STALL_SECONDS * 1000,
    "keepalives_idle": DATABASE_STALL_SECONDS // 3,
    "keepalives_interval": DATABASE_STALL_SECONDS // 6,
    "keepalives_count": 4,
}


def missing_file(url: str) -> Path | None:
    """Returns the SQLite file of a URL if it does not exist; opening the URL would create it."""
    file = sa.make_url(url).database if url.startswith("sqlite") else None
    return Path(file).absolute() if file and not Path(file).is_file() else None


def _engine(url: sa.URL, durable: bool) -> Engine:
    # Only the thread that follows the feed writes heartbeats.
    pool = {"pool_size": POOL_CONNECTIONS if durable else 1, "max_overflow": 0}
    backend = url.drivername.partition("+")[0]
    if backend in ("postgresql", "postgres"):
        engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={key: _POSTGRES[key] for key in _POSTGRES.keys() - url.query.keys()},
            isolation_level="READ COMMITTED",  # whatever the server's default is
            pool_pre_ping=True,
            **pool,
        )
        sa.event.listen(engine, "connect", _postgres_connect(durable))
        return engine
    if backend != "sqlite":
        raise ValueError(f"GPQ_DATABASE_URL: {backend} is not supported; use sqlite or postgresql")
    if url.database in (None, "", ":memory:"):
        raise ValueError("GPQ_DATABASE_URL: SQLite in memory keeps nothing; name a file")
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    timeout = DATABASE_STALL_SECONDS if durable else HEARTBEAT_WRITE_SECONDS
    engine = sa.create_engine(url, connect_args={"timeout": timeout}, **pool)
    sa.event.listen(engine, "connect", _sqlite_connect(durable, timeout))
    sa.event.listen(engine, "begin", _sqlite_begin)
    return engine


def _postgres_connect(durable: bool) -> Callable[[Any, object], None]:
    def connect(connection: Any, record: object) -> None:
        # A process that is suspended while it holds the write lock loses the lock.
        for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(f"SET {name} = '{DATABASE_STALL_SECONDS}s'")
        # With a weaker server default, acknowledged writes could be lost.
        current = connection.execute("SHOW synchronous_commit").fetchone()[0]
        if not durable or current == "off":
            connection.execute(f"SET synchronous_commit = {'on' if durable else 'off'}")
        connection.commit()

    return connect


def _sqlite_connect(durable: bool, timeout: float) -> Callable[[Any, object], None]:
    def connect(connection: Any, record: object) -> None:
        connection.isolation_level = None  # _sqlite_begin writes BEGIN
        _write_ahead(connection, timeout)
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys=ON")

    return connect


def _write_ahead(connection: sqlite3.Connection, timeout: float) -> None:
    """Switches to WAL. SQLite's own timeout does not cover this, and processes may race for it."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _sqlite_begin(connection: Connection) -> None:
    """Begins writers with IMMEDIATE: a deferred BEGIN that turns into a write fails as locked."""
    options = connection.get_execution_options()
    if not options.get("gpq_no_begin"):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("gpq_write") else "BEGIN")
