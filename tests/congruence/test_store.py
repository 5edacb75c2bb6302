import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from service.database import schema
from service.database.engine import SEQS_IN_A_QUERY, Database
from service.database.feed import FeedTable
from service.database.migrate import migrate
from service.database.records import KEEP, CodeCounts, Put, active_of
from service.database.store import Store
from service.errors import ModelChanged, NewerSchema
from tests.congruence.conftest import FILES


def put(id: str, content: int = 1, metadata=KEEP, model: str = "m") -> Put:
    return Put(id, {model: bytes([content])}, f"{content:064x}", 4, 3, 100, metadata)


def statuses(store: Store, puts: list[Put]) -> list[str]:
    return [entry.status for entry in store.images.put(puts)]


def head(store: Store) -> int:
    return store.feed.lag(0)[0]


def snapshot(store: Store) -> tuple[int, list[tuple[int, bytes]]]:
    with store.feed.snapshot("m") as taken:
        assert active_of(taken.models) == "m"
        return taken.head.seq, [tuple(pair) for part in taken.parts for pair in part]


def test_a_put_creates_replaces_or_leaves_an_image_unchanged(store: Store) -> None:
    assert statuses(store, [put("a"), put("b", 2, '{"x":1}')]) == ["created", "created"]
    assert statuses(store, [put("a"), put("b", 3), put("c")]) == [
        "unchanged", "replaced", "created",
    ]  # fmt: skip
    row = store.images.get("b")
    assert (row.seq, row.metadata) == (3, '{"x":1}')
    assert (store.images.code(3, "m"), store.images.code(2, "m"), store.images.code(3, "n")) == (
        b"\x03",
        None,
        None,
    )
    assert store.images.get("a").seq == 1
    assert store.images.get("none") is None


def test_codes_of_a_model_that_the_database_does_not_hold_are_refused(store: Store) -> None:
    store.images.put([put("a")])
    with pytest.raises(
        ModelChanged, match=r"the database keeps codes of models \[.m.\], not of \[.n.\]"
    ):
        statuses(store, [put("b", model="n")])
    assert store.images.get("b") is None


def test_a_change_of_metadata_keeps_the_seq_and_is_in_the_feed(store: Store) -> None:
    store.images.put([put("b", 1), put("a", 1, '{"x":1}')])
    assert statuses(store, [put("a", 1, '{"x":1}')]) == ["unchanged"]
    assert statuses(store, [put("a", 1, '{"x":2}')]) == ["replaced"]
    assert store.images.get("a").metadata == '{"x":2}'
    assert statuses(store, [put("a", 1, None)]) == ["replaced"]
    assert store.images.describe("a", None) and not store.images.describe("c", None)
    assert store.images.describe("a", '{"x":3}')
    assert store.images.get("a").metadata == '{"x":3}'
    assert store.images.get("a").seq == 2
    found = store.feed.resolve([1], 2)
    assert [(c.seq, c.removes, c.codes, c.describes) for c in found.changes] == [
        (seq, None, {}, 2) for seq in (3, 4, 5)
    ]
    assert found.images == {1: ("b", None), 2: ("a", '{"x":3}')}
    assert found.codes == {2: b"\x01"}
    store.images.delete("a")
    assert store.feed.resolve([1], 2).codes == {}


def test_the_feed_lists_every_change_in_order(store: Store) -> None:
    store.images.put([put("a"), put("b", 2)])
    store.images.put([put("a", 3)])
    assert store.images.delete("b") == 4
    assert store.images.delete("b") is None
    changes = [(c.seq, c.removes, c.codes) for c in store.feed.changes_after(0).page]
    # The codes of the first two puts were removed by later changes.
    assert changes == [(1, None, {}), (2, None, {}), (3, 1, {"m": b"\x03"}), (4, 2, {})]
    assert [c.seq for c in store.feed.changes_after(2, 1).page] == [3]
    assert head(store) == 4


def test_a_snapshot_holds_codes_in_seq_order_and_the_head(store: Store) -> None:
    assert snapshot(store) == (0, [])
    store.images.put([put("b", 1), put("a", 2), put("c", 3)])
    store.images.put([put("b", 4)])
    store.images.delete("c")
    assert snapshot(store) == (5, [(2, b"\x02"), (4, b"\x04")])


def test_a_deleted_seq_is_never_used_again(store: Store) -> None:
    store.images.put([put("a")])
    store.images.delete("a")
    store.images.put([put("a")])
    assert store.images.get("a").seq == 3


def test_resolve_returns_current_images_and_later_changes(store: Store) -> None:
    store.images.put([put("a", 1, '{"x":1}'), put("b", 2)])
    store.images.put([put("b", 3), put("c", 4)])
    now = store.feed.resolve([1, 2, 3, 99], 4)
    assert now.images == {1: ("a", '{"x":1}'), 3: ("b", None)}
    assert (now.changes, now.complete, now.model) == ([], True, "m")
    since = store.feed.resolve([1, 2], 2)
    assert since.images == {1: ("a", '{"x":1}'), 3: ("b", None), 4: ("c", None)}
    assert [(c.seq, c.removes) for c in since.changes] == [(3, 2), (4, None)]
    assert (since.complete, since.model) == (True, "m")
    store.images.delete("c")
    assert store.feed.resolve([], 2).images == {3: ("b", None)}
    time.sleep(0.02)
    store.feed.prune(0)
    store.images.put([put("d", 5)])
    assert store.feed.resolve([], 2).complete is False
    time.sleep(0.02)
    store.feed.prune(0)
    assert store.feed.resolve([], 4).complete is False
    assert store.feed.resolve([], 6).complete is True


def test_resolve_uses_one_statement_if_nothing_has_changed(store: Store) -> None:
    store.images.put([put("a", 1, '{"x":1}'), put("b", 2)])
    store.images.put([put("b", 3)])
    time.sleep(0.02)
    store.feed.prune(0)
    store.images.put([put("c", 4)])
    statements: list[str] = []
    sa.event.listen(
        store.database._engine, "before_cursor_execute", lambda *given: statements.append(given[2])
    )
    for after in range(6):
        for seqs in ([], [99], [1, 2, 3, 4]):
            statements.clear()
            resolved = store.feed.resolve(seqs, after)
            assert (len(statements) == 1) == (after >= 4)
            with patch.object(FeedTable, "_resolve_unchanged", return_value=None):
                assert store.feed.resolve(seqs, after) == resolved


def test_resolve_accepts_more_seqs_than_one_statement_takes(store: Store) -> None:
    store.images.put([put("a")])
    assert store.feed.resolve(range(1, SEQS_IN_A_QUERY + 2), 1).images == {1: ("a", None)}


def test_code_counts_cover_images_unique_codes_and_ties(store: Store) -> None:
    assert store.images.code_counts("m") == CodeCounts(0, 0, 0)
    store.images.put([put("a"), put("b"), put("c", 2)])
    assert store.images.code_counts("m") == CodeCounts(3, 2, 2)
    assert store.images.code_counts("n") == CodeCounts(0, 0, 0)


def test_only_an_empty_database_adopts_another_model(store: Store) -> None:
    assert store.models.adopt("m", FILES) == "m"
    assert store.models.adopt("n", FILES) == "n"
    store.images.put([put("a", model="n")])
    assert store.models.adopt("m", FILES) == "n"


def test_a_failed_transaction_leaves_no_trace(store: Store) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        store.images.put([put("a"), put("a", 2)])
    assert store.images.get("a") is None
    assert head(store) == 0


def test_concurrent_writers_lose_nothing_and_are_numbered_in_commit_order(store: Store) -> None:
    seen: list[int] = []
    done = threading.Event()

    def write(name: int) -> None:
        for n in range(20):
            store.images.put([put(f"{name}-{n}"), put("shared", 1 + n + 20 * name)])

    def follow() -> None:
        while not done.is_set() or (seen or [0])[-1] < head(store):
            seen.extend(c.seq for c in store.feed.changes_after(seen[-1] if seen else 0, 7).page)

    writers = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    follower = threading.Thread(target=follow)
    for thread in (*writers, follower):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    follower.join()
    last, codes = snapshot(store)
    assert len(codes) == 81
    assert seen == [c.seq for c in store.feed.changes_after(0).page]
    assert seen[-1] == last


def test_originals_in_use_are_those_of_stored_images(store: Store) -> None:
    store.images.put([put("a", 1), put("b", 2)])
    used = f"{1:064x}"
    assert store.images.originals_in_use([used, "f" * 64]) == {used}


def test_pages_are_in_seq_order(store: Store) -> None:
    store.images.put([put(f"p{n}", n) for n in range(5)])
    store.images.put([put("p1", 9)])
    assert [row.id for row in store.images.page(0, 3)] == ["p0", "p2", "p3"]
    assert [row.id for row in store.images.page(4, 3)] == ["p4", "p1"]
    assert store.images.page(6, 3) == []


def test_describe_changes_only_the_metadata(store: Store) -> None:
    store.images.put([put("a", 1, '{"x":1}')])
    assert store.images.describe("a", '{"x":2}') is True
    assert (store.images.get("a").metadata, store.images.get("a").seq) == ('{"x":2}', 1)
    assert store.images.describe("a", None) is True
    assert store.images.get("a").metadata is None
    assert store.images.describe("none", None) is False
    assert head(store) == 3  # each of the two changes is in the feed


def test_pruning_deletes_old_changes_and_records_it(store: Store) -> None:
    store.images.put([put("a"), put("b", 2)])
    assert store.feed.prune(60) == 0
    time.sleep(0.3)
    store.images.put([put("c", 3)])
    assert store.feed.prune(0.2) == 2
    changes = store.feed.changes_after(2)
    assert [change.seq for change in changes.page] == [3]
    assert (changes.pruned, changes.last) == (2, None)
    assert store.feed.changes_after(3).last.seq == 3
    time.sleep(0.3)
    assert store.feed.prune(0.2) == 1
    assert (store.feed.changes_after(3).pruned, head(store)) == (3, 3)
    store.images.put([put("d", 4)])
    assert store.images.get("d").seq == 4


def test_the_lag_is_the_age_of_the_oldest_change_not_applied(store: Store) -> None:
    assert store.feed.lag(0) == (0, 0)
    store.images.put([put("a")])
    time.sleep(0.3)
    store.images.put([put("b", 2)])
    seq, lag = store.feed.lag(0)
    assert seq == 2
    assert 0.3 <= lag < 30
    assert store.feed.lag(1)[1] < lag - 0.2
    assert store.feed.lag(2) == (2, 0)


def test_heartbeats_show_living_replicas_and_their_progress(store: Store) -> None:
    store.replicas.beat("one", 3)
    store.replicas.beat("two", 4)
    store.replicas.beat("one", 5)
    assert [(r.name, r.applied) for r in store.replicas.alive()] == [("one", 5), ("two", 4)]
    assert all(0 <= r.age < 5 for r in store.replicas.alive())
    with store.database.transaction() as connection:
        late = sa.update(schema.replicas).where(schema.replicas.c.name == "two")
        connection.execute(late.values(seen=schema.replicas.c.seen - 6))
    assert [r.name for r in store.replicas.alive()] == ["one"]
    assert store.replicas.latencies() == {}
    store.replicas.beat("one", 5, search_p99=0.02)
    assert store.replicas.latencies() == {"one": 0.02}
    store.replicas.beat("one", 5)
    assert store.replicas.latencies() == {}
    store.replicas.leave("one")
    assert store.replicas.alive() == []


def write_at_once(store: Store, write: Callable[[int], None], numbers: range) -> None:
    """Calls ``write`` with each number on its own thread; all queue before the first commit."""
    threads = [threading.Thread(target=write, args=(n,)) for n in numbers]
    with store.database._writing:
        for thread in threads:
            thread.start()
        while len(store.database._waiting) < len(numbers):
            time.sleep(0.01)
    for thread in threads:
        thread.join()


def test_concurrent_writes_share_commits_and_fail_alone(store: Store) -> None:
    """Twenty requests queue while a transaction is held; two of them are bad."""
    outcomes: dict[int, object] = {}

    def write(n: int) -> None:
        puts = [put("twice", n), put("twice", n + 100)] if n in (5, 9) else [put(f"w{n}", n)]
        try:
            outcomes[n] = store.images.put(puts)[0].status
        except sa.exc.IntegrityError as error:
            outcomes[n] = type(error)

    commits = []
    sa.event.listen(store.database._engine, "commit", lambda connection: commits.append(1))
    write_at_once(store, write, range(20))
    assert {n for n in outcomes if outcomes[n] == "created"} == set(range(20)) - {5, 9}
    assert outcomes[5] is outcomes[9] is sa.exc.IntegrityError
    assert head(store) >= 18
    assert store.images.get("twice") is None
    # Without a bad request among them, all share one commit.
    commits.clear()
    outcomes.clear()
    write_at_once(store, write, range(100, 120))
    assert set(outcomes.values()) == {"created"}
    assert len(commits) == 1


def test_a_write_returns_after_its_own_commit_and_does_not_wait_for_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten writes share three commits, four at most in each; the last one waits for ``go``."""
    monkeypatch.setattr("service.database.engine.WRITES_IN_A_COMMIT", 4)
    go = threading.Event()
    database = store.database

    def write(n: int) -> int:
        assert n < 8 or go.wait(10)
        return n

    with ThreadPoolExecutor(10) as pool:
        with database._writing:
            writes = []
            for n in range(10):
                writes.append(pool.submit(database.write, lambda _, n=n: write(n)))
                while len(database._waiting) <= n:
                    time.sleep(0.001)
        try:
            assert [each.result(5) for each in writes[:8]] == list(range(8))
            assert not any(each.done() for each in writes[8:])
        finally:
            go.set()
        assert [each.result(5) for each in writes[8:]] == [8, 9]
    assert database.write(lambda _: 10) == 10  # no thread leads a commit any more


def test_an_interrupted_write_does_not_stop_the_others(store: Store) -> None:
    def fail(connection: object) -> None:
        raise KeyboardInterrupt

    outcomes: list[object] = []

    def write(n: int) -> None:
        try:
            work = fail if n % 3 == 0 else lambda _: n
            outcomes.append(store.database.write(work))
        except KeyboardInterrupt:
            outcomes.append("interrupted")

    write_at_once(store, write, range(9))
    assert sorted(map(str, outcomes)) == [*map(str, (1, 2, 4, 5, 7, 8)), *["interrupted"] * 3]


def test_an_open_transaction_holds_back_later_numbers(database_url: str, store: Store) -> None:
    """A process has assigned a number and not committed; readers must not see later numbers."""
    other = Store(database_url)
    seen = [change.seq for change in store.feed.changes_after(0).page]
    started = threading.Event()

    def write() -> None:
        started.set()
        other.images.put([put("second", 2)])

    writer = threading.Thread(target=write)
    with store.database.transaction() as held:
        first = store.images._put(held, [put("first")])[0].seq
        writer.start()
        started.wait()
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            seen += [change.seq for change in other.feed.changes_after((seen or [0])[-1]).page]
        assert seen == []
        assert writer.is_alive()
    writer.join()
    seen += [change.seq for change in other.feed.changes_after(0).page]
    assert seen == [first, store.images.get("second").seq]
    assert first < store.images.get("second").seq
    other.close()


def test_migrations_create_the_schema_of_the_code(database_url: str) -> None:
    store = Store(database_url)
    migrate(store.database)
    migrate(store.database)
    with store.database.read() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
    store.close()


def test_migrations_keep_data_in_both_directions(database_url: str) -> None:
    store = Store(database_url)
    migrate(store.database, "0001")
    with store.database.transaction() as connection:
        connection.execute(sa.text("INSERT INTO state (name, value) VALUES ('model', 'm')"))
        insert = "INSERT INTO feed (removes, code) VALUES (NULL, :code)"
        connection.execute(sa.text(insert), {"code": b"\x01"})
        insert = (
            "INSERT INTO images (id, seq, model, code, sha256, width, height, bytes, created, "
            "metadata) VALUES ('a', 1, 'm', :code, :sha256, 4, 3, 100, 'then', :metadata)"
        )
        values = {"code": b"\x01", "sha256": put("a", 1).sha256, "metadata": '{"x":1}'}
        connection.execute(sa.text(insert), values)
    migrate(store.database)
    before = store.images.get("a")
    assert (before.seq, before.metadata, store.images.code(1, "m")) == (1, '{"x":1}', b"\x01")
    assert [change.codes for change in store.feed.changes_after(0).page] == [{"m": b"\x01"}]
    assert [(row.id, row.active, row.complete) for row in store.models.all()] == [("m", True, True)]
    assert statuses(store, [put("a"), put("b", 2)]) == ["unchanged", "created"]
    store.replicas.beat("one", 2)
    assert store.state.identity() == store.state.identity()
    store.images.delete("a")
    migrate(store.database, "0001")
    with store.database.read() as connection:
        columns = {column["name"] for column in sa.inspect(connection).get_columns("feed")}
        assert columns == {"seq", "removes", "code"}
        kept = connection.execute(sa.text("SELECT id, seq, model, code FROM images")).all()
        assert [(*row[:3], bytes(row.code)) for row in kept] == [("b", 2, "m", b"\x02")]
    migrate(store.database)
    assert snapshot(store) == (3, [(2, b"\x02")])
    assert statuses(store, [put("a")]) == ["created"]
    assert store.images.get("a").seq == 4
    migrate(store.database, "base")
    with store.database.read() as connection:
        assert set(sa.inspect(connection).get_table_names()) <= {"alembic_version"}
    migrate(store.database)
    assert store.images.get("a") is None
    store.close()


def test_the_error_of_a_newer_schema_names_its_revision(store: Store) -> None:
    with store.database.transaction() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerSchema, match="9999"):
        migrate(store.database)


def test_unsupported_database_urls_are_refused() -> None:
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ValueError, match="keeps nothing"):
            Store(url)
    with pytest.raises(ValueError, match="mysql is not supported; use sqlite or postgresql"):
        Store("mysql://x/y")


def test_processes_that_create_a_file_together_wait_for_each_other(tmp_path: Path) -> None:
    for attempt in range(20):
        databases = [Database(f"sqlite:///{tmp_path}/{attempt}.db") for _ in range(4)]
        together = threading.Barrier(len(databases))

        def connect(database: Database, together: threading.Barrier = together) -> None:
            together.wait()
            with database.transaction():
                pass

        with ThreadPoolExecutor(len(databases)) as pool:
            list(pool.map(connect, databases))
        for database in databases:
            database.close()


def test_processes_that_migrate_at_once_agree(database_url: str) -> None:
    stores = [Store(database_url) for _ in range(3)]
    errors: list[BaseException] = []

    def start(store: Store) -> None:
        try:
            migrate(store.database)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    stores[0].models.adopt("m", FILES)
    assert statuses(stores[0], [put("a")]) == ["created"]
    for store in stores:
        store.close()
