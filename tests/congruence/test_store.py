import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

import migrations
from service import schema
from service.store import KEEP, OtherModel, Put, Store


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    opened.migrate()
    opened.adopt_model("m")
    yield opened
    opened.close()


def put(id: str, content: int = 1, metadata=KEEP) -> Put:
    return Put(id, bytes([content]), f"{content:064x}", 4, 3, 100, metadata)


def snapshot(store: Store) -> tuple[int, list[tuple[int, bytes]]]:
    with store.snapshot() as (head, parts):
        return head, [pair for part in parts for pair in part]


def test_put_creates_replaces_and_leaves_alone(store: Store) -> None:
    assert store.put([put("a"), put("b", 2, '{"x":1}')], "m") == ["created", "created"]
    assert store.put([put("a"), put("b", 3), put("c")], "m") == [
        "unchanged", "replaced", "created",
    ]  # fmt: skip
    row = store.get("b")
    assert (row.seq, row.code, row.metadata, row.model) == (3, b"\x03", '{"x":1}', "m")
    assert store.get("a").seq == 1
    assert store.get("none") is None


def test_codes_of_another_model_than_the_active_one_are_refused(store: Store) -> None:
    store.put([put("a")], "m")
    with pytest.raises(OtherModel, match="active model is m, not n"):
        store.put([put("b")], "n")
    assert store.get("b") is None


def test_metadata_alone_keeps_the_seq_and_is_no_change_of_the_feed(store: Store) -> None:
    store.put([put("a", 1, '{"x":1}')], "m")
    assert store.put([put("a", 1, '{"x":1}')], "m") == ["unchanged"]
    assert store.put([put("a", 1, '{"x":2}')], "m") == ["replaced"]
    assert store.get("a").metadata == '{"x":2}'
    assert store.put([put("a", 1, None)], "m") == ["replaced"]
    assert store.get("a").metadata is None
    assert store.head() == store.get("a").seq == 1


def test_the_feed_tells_every_change_in_order(store: Store) -> None:
    store.put([put("a"), put("b", 2)], "m")
    store.put([put("a", 3)], "m")
    assert store.delete("b") is True
    assert store.delete("b") is False
    changes = [(c.seq, c.removes, c.code) for c in store.changes_after(0, 100)]
    assert changes == [(1, None, b"\x01"), (2, None, b"\x02"), (3, 1, b"\x03"), (4, 2, None)]
    assert [c.seq for c in store.changes_after(2, 1)] == [3]
    assert store.head() == 4


def test_a_snapshot_is_codes_in_seq_order_with_the_head(store: Store) -> None:
    assert snapshot(store) == (0, [])
    store.put([put("b", 1), put("a", 2), put("c", 3)], "m")
    store.put([put("b", 4)], "m")
    store.delete("c")
    assert snapshot(store) == (5, [(2, b"\x02"), (4, b"\x04")])


def test_a_deleted_seq_is_never_used_again(store: Store) -> None:
    store.put([put("a")], "m")
    store.delete("a")
    store.put([put("a")], "m")
    assert store.get("a").seq == 3


def test_by_seq_finds_current_codes_only(store: Store) -> None:
    store.put([put("a", 1, '{"x":1}'), put("b", 2)], "m")
    store.put([put("b", 3)], "m")
    assert store.by_seq([1, 2, 3, 99]) == {1: ("a", '{"x":1}'), 3: ("b", None)}
    assert store.by_seq([]) == {}


def test_counts(store: Store) -> None:
    assert store.counts() == (0, 0, 0)
    store.put([put("a"), put("b"), put("c", 2)], "m")
    assert store.counts() == (3, 2, 2)


def test_a_model_is_adopted_by_an_empty_database_only(store: Store) -> None:
    assert store.adopt_model("m") == "m"
    assert store.adopt_model("n") == "n"
    store.put([put("a")], "n")
    assert store.adopt_model("m") == "n"


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        store.put([put("a"), put("a", 2)], "m")
    assert store.get("a") is None
    assert store.head() == 0


def test_writers_at_once_lose_nothing_and_number_in_commit_order(store: Store) -> None:
    seen: list[int] = []
    done = threading.Event()

    def write(name: int) -> None:
        for n in range(20):
            store.put([put(f"{name}-{n}"), put("shared", 1 + n + 20 * name)], "m")

    def follow() -> None:
        while not done.is_set() or seen[-1] < store.head():
            seen.extend(c.seq for c in store.changes_after(seen[-1] if seen else 0, 7))

    writers = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    follower = threading.Thread(target=follow)
    for thread in (*writers, follower):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    follower.join()
    head, codes = snapshot(store)
    assert len(codes) == 81
    assert seen == [c.seq for c in store.changes_after(0, 1000)]
    assert seen[-1] == head


def test_originals_in_use(store: Store) -> None:
    store.put([put("a", 1), put("b", 2)], "m")
    used = f"{1:064x}"
    assert store.originals_in_use([used, "f" * 64]) == {used}


def test_migrations_make_the_schema_of_the_code_and_go_back(database_url: str) -> None:
    store = Store(database_url)
    store.migrate()
    store.migrate()
    with store.engine.begin() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
    config = Config()
    config.set_main_option("script_location", migrations.__path__[0])
    with store.engine.execution_options(gpq_write=True).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with store.engine.begin() as connection:
        assert set(sa.inspect(connection).get_table_names()) <= {"alembic_version"}
    store.migrate()
    store.adopt_model("m")
    assert store.put([put("a")], "m") == ["created"]
    store.close()


def test_processes_migrating_at_once_agree(database_url: str) -> None:
    stores = [Store(database_url) for _ in range(3)]
    errors: list[BaseException] = []

    def migrate(store: Store) -> None:
        try:
            store.migrate()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=migrate, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    stores[0].adopt_model("m")
    assert stores[0].put([put("a")], "m") == ["created"]
    for store in stores:
        store.close()
