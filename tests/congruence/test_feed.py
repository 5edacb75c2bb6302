"""Indexes that follow one database; a process is stood for by a Store and a Feed."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

import service.index.follower
import service.index.index
from service.database import schema
from service.database.migrate import migrate
from service.database.records import Put
from service.database.store import Store
from service.errors import ModelChanged
from service.index.follower import FeedFollower
from service.index.index import Index
from tests.congruence.conftest import FILES
from tests.waiting import until

M = 2
OPEN = Callable[..., FeedFollower]


@pytest.fixture
def opened(database_url: str) -> Iterator[OPEN]:
    """Opens another process over the same database."""
    feeds: list[FeedFollower] = []

    def open_feed(file: Path | None = None) -> FeedFollower:
        store = Store(database_url)
        migrate(store.database)
        store.models.adopt("m", FILES)
        feed = FeedFollower(store, lambda model, codes: Index(model, M, "auto", codes), "m", file)
        feed.load()
        feeds.append(feed)
        return feed

    yield open_feed
    for feed in feeds:
        feed.stop()
        feed.store.close()


def put(feed: FeedFollower, id: str, code: int) -> int:
    entry = Put(id, {"m": bytes([code])}, f"{id}-{code}", 4, 3, 100, None)
    return feed.store.images.put([entry])[0].seq


def seqs(feed: FeedFollower) -> list[int]:
    return sorted(s for s, _ in feed.index.search(np.zeros((1, M, 16), np.float32), 1000)[0])


def test_every_process_follows_every_other(opened: OPEN) -> None:
    feeds = [opened() for _ in range(3)]
    for feed in feeds:
        feed.start()
    last = 0
    for n in range(30):
        last = put(feeds[n % 3], f"p{n % 20}", n % 16)
    gone = feeds[0].store.images.delete("p5")
    assert gone == last + 1
    until(lambda: all(feed.applied == gone for feed in feeds))
    assert seqs(feeds[0]) == seqs(feeds[1]) == seqs(feeds[2])
    assert len(feeds[0].index) == 19
    for feed in feeds:
        seq, memory, database = feed.checksums()
        assert (seq, memory) == (gone, database)


def test_own_writes_are_applied_before_the_call_returns(opened: OPEN) -> None:
    one, two = opened(), opened()
    put(two, "of-another", 1)
    seq = put(one, "mine", 1)
    one.catch_up(seq)
    assert one.applied == seq == 2
    assert seqs(one) == [1, 2]
    one.catch_up(1)
    one.catch_up()
    assert seqs(one) == [1, 2]
    assert seqs(two) == []


def test_a_reader_behind_the_pruned_changes_loads_anew(opened: OPEN) -> None:
    behind, writer = opened(), opened()
    put(writer, "a", 1)
    behind.catch_up()
    put(writer, "b", 2)
    writer.store.images.delete("a")
    time.sleep(0.02)
    assert writer.store.feed.prune(0) == 3
    put(writer, "c", 3)
    old = behind.index
    behind.catch_up()
    assert behind.index is not old
    assert seqs(behind) == [2, 4]
    _, memory, database = behind.checksums()
    assert memory == database
    kept = behind.index
    put(writer, "d", 4)
    behind.catch_up()
    assert behind.index is kept
    assert seqs(behind) == [2, 4, 5]


@pytest.mark.parametrize("further", [0, 2, 5])
def test_a_database_put_back_to_an_older_state_is_loaded_anew(further: int, opened: OPEN) -> None:
    """Others may have drawn the same numbers again before this process looks."""
    feed, other = opened(), opened()
    for n in range(4):
        put(feed, f"p{n}", n)
    feed.catch_up()
    with feed.store.database.transaction() as connection:
        connection.execute(sa.delete(schema.images).where(schema.images.c.seq > 2))
        connection.execute(sa.delete(schema.codes).where(schema.codes.c.seq > 2))
        connection.execute(sa.delete(schema.feed).where(schema.feed.c.seq > 2))
        if feed.store.database.is_postgres:
            connection.execute(sa.text("SELECT setval('feed_seq_seq', 2)"))
        else:
            connection.execute(sa.text("UPDATE sqlite_sequence SET seq = 2 WHERE name = 'feed'"))
    for n in range(further):
        put(other, f"q{n}", n)
    feed.catch_up()
    assert seqs(feed) == list(range(1, 3 + further))
    _, memory, database = feed.checksums()
    assert memory == database


def test_checksums_of_a_reader_ahead_of_the_database(opened: OPEN) -> None:
    feed = opened()
    feed.catch_up(put(feed, "a", 1))
    with feed.store.database.transaction() as connection:
        connection.execute(sa.delete(schema.images))
        connection.execute(sa.delete(schema.codes))
        connection.execute(sa.delete(schema.feed))
    seq, memory, database = feed.checksums()
    assert (seq, memory) == (0, database)


def test_a_model_that_comes_back_is_followed_again(opened: OPEN) -> None:
    feed = opened()
    feed.catch_up(put(feed, "a", 1))
    feed.start()
    with feed.store.database.transaction() as connection:
        connection.execute(sa.update(schema.models).values(active=False))
    until(lambda: feed.missing_model is not None)
    with feed.store.database.transaction() as connection:
        connection.execute(sa.update(schema.models).values(active=True))
    until(lambda: feed.missing_model is None)
    seq = put(feed, "b", 2)
    until(lambda: feed.applied == seq)
    assert seqs(feed) == [1, 2]


def test_a_checksum_tells_of_drift(opened: OPEN) -> None:
    feed = opened()
    put(feed, "a", 1)
    feed.catch_up()
    with feed.store.database.transaction() as connection:
        connection.execute(sa.update(schema.codes).values(code=b"\x07"))
    _, memory, database = feed.checksums()
    assert memory != database


def test_compacting_keeps_what_is_live(opened: OPEN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.index.index, "COMPACT_ROWS", 10)
    feed = opened()
    old = feed.index
    for n in range(40):
        feed.catch_up(put(feed, f"p{n % 4}", n % 16))
    assert feed.index is not old
    assert seqs(feed) == [37, 38, 39, 40]
    _, memory, database = feed.checksums()
    assert memory == database


def test_waiting_for_all(opened: OPEN) -> None:
    one, two = opened(), opened()
    one.start()
    seq = put(one, "a", 1)
    until(lambda: one.applied == seq)
    assert one.store.replicas.have_applied(seq) is False  # two is alive and does not follow
    two.start()
    until(lambda: one.store.replicas.have_applied(seq))
    assert two.applied == seq
    assert {replica.name for replica in one.store.replicas.alive()} == {
        one.heartbeat.name,
        two.heartbeat.name,
    }
    two.stop()
    assert [replica.name for replica in one.store.replicas.alive()] == [one.heartbeat.name]


def test_a_process_that_stalls_is_not_waited_for_ever(opened: OPEN) -> None:
    one, stalled = opened(), opened()
    one.start()
    seq = put(one, "a", 1)
    assert stalled.heartbeat.name in {replica.name for replica in one.store.replicas.alive()}
    until(lambda: one.store.replicas.have_applied(seq))  # once its heartbeat is 5 s old
    assert stalled.applied == 0


def test_codes_of_another_model_are_not_applied(opened: OPEN) -> None:
    feed = opened()
    feed.store.models.adopt("n", FILES)
    feed.store.images.put([Put("a", {"n": b"\x01"}, "s", 1, 1, 1, None)])
    with pytest.raises(ModelChanged, match="the active model is n, not m"):
        feed.catch_up()
    assert feed.missing_model == "n"
    assert len(feed.index) == 0


def of(feed: FeedFollower, model: str) -> list[int]:
    found = feed.indexes[model].search(np.zeros((1, M, 16), np.float32), 1000)[0]
    return sorted(seq for seq, _ in found)


def put_both(feed: FeedFollower, id: str, code: int) -> int:
    codes = {"m": bytes([code]), "n": bytes([code ^ 1])}
    return feed.store.images.put([Put(id, codes, f"{id}-{code}", 4, 3, 100, None)])[0].seq


def test_the_codes_of_several_models_are_followed_and_any_may_be_active(opened: OPEN) -> None:
    feed, other = opened(), opened()
    put(feed, "a", 1)
    feed.store.models.add("n", FILES)
    put_both(feed, "b", 2)
    feed.store.models.fill("n", {1: b"\x00"})
    assert feed.store.models.complete("n")
    feed.load_model("n")  # it is behind the codes that it loads
    put_both(feed, "b", 3)
    other.catch_up()
    other.load_model("n")
    for process in (feed, other):
        process.catch_up()
        assert of(process, "m") == of(process, "n") == [1, 3]
    feed.store.models.activate("n")
    for process in (feed, other):
        process.catch_up()
        assert process.model == "n"
        seq, memory, database = process.checksums()
        assert (seq, memory) == (3, database)
    feed.store.models.activate("m")
    put_both(other, "c", 4)
    feed.catch_up()
    assert (feed.model, of(feed, "m"), of(feed, "n")) == ("m", [1, 3, 4], [1, 3, 4])
    feed.drop_model("n")
    assert list(feed.indexes) == ["m"]


def test_codes_of_a_model_that_went_and_came_back_are_loaded_anew(opened: OPEN) -> None:
    feed = opened()
    feed.store.models.add("n", FILES)
    put_both(feed, "a", 1)
    feed.catch_up()
    feed.load_model("n")
    feed.store.models.delete("n")
    put(feed, "b", 2)
    feed.store.models.add("n", FILES)
    feed.catch_up()
    assert list(feed.indexes) == ["m"]


def test_searches_go_on_while_it_loads_anew(opened: OPEN) -> None:
    feed = opened()
    for n in range(50):
        put(feed, f"p{n}", n % 16)
    feed.catch_up()
    whole = seqs(feed)
    counts: set[int] = set()
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            counts.add(len(seqs(feed)))

    searcher = threading.Thread(target=search)
    searcher.start()
    for _ in range(20):
        feed.load()
    done.set()
    searcher.join()
    assert counts == {50}
    assert seqs(feed) == whole


def test_a_start_from_a_file_is_brought_up_to_date(opened: OPEN, tmp_path: Path, caplog) -> None:
    file = tmp_path / "codes"
    first = opened(file)
    first.start()
    for n in range(5):
        put(first, f"p{n}", n)
    first.catch_up()
    first.stop()
    assert file.is_file()
    writer = opened()
    put(writer, "p1", 7)
    writer.store.images.delete("p4")
    caplog.set_level("INFO")
    again = opened(file)
    assert f"5 codes from {file}, as of change 5" in caplog.text
    assert seqs(again) == [1, 3, 4, 6]
    _, memory, database = again.checksums()
    assert memory == database


def test_a_file_from_before_the_pruned_changes_is_not_trusted(opened: OPEN, tmp_path: Path) -> None:
    file = tmp_path / "codes"
    first = opened(file)
    first.start()
    put(first, "a", 1)
    first.catch_up()
    first.stop()
    writer = opened()
    put(writer, "b", 2)
    writer.store.images.delete("a")
    time.sleep(0.02)
    assert writer.store.feed.prune(0) == 3
    assert seqs(opened(file)) == [2]


def test_a_file_is_written_now_and_then(
    opened: OPEN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.index.follower, "SAVE_SECONDS", 0.1)
    file = tmp_path / "codes"
    feed = opened(file)
    feed.start()
    put(feed, "a", 1)
    until(file.is_file)
    assert seqs(opened(file)) == [1]
