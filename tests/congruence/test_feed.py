"""Tests of indexes that follow one database. A store and a follower represent a process."""

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
OpenFollower = Callable[..., FeedFollower]


@pytest.fixture
def open_follower(database_url: str) -> Iterator[OpenFollower]:
    """Opens another process over the same database."""
    followers: list[FeedFollower] = []

    def open_one(file: Path | None = None) -> FeedFollower:
        store = Store(database_url)
        migrate(store.database)
        store.models.adopt("m", FILES)
        follower = FeedFollower(
            store, lambda model, codes: Index(model, M, "auto", codes), "m", file
        )
        follower.load()
        followers.append(follower)
        return follower

    yield open_one
    for follower in followers:
        follower.stop()
        follower.store.close()


def put(follower: FeedFollower, id: str, code: int) -> int:
    entry = Put(id, {"m": bytes([code])}, f"{id}-{code}", 4, 3, 100, None)
    return follower.store.images.put([entry])[0].seq


def seqs(follower: FeedFollower) -> list[int]:
    return sorted(s for s, _ in follower.index.search(np.zeros((1, M, 16), np.float32), 1000)[0])


def test_every_process_follows_the_writes_of_every_other(open_follower: OpenFollower) -> None:
    followers = [open_follower() for _ in range(3)]
    for follower in followers:
        follower.start()
    last = 0
    for n in range(30):
        last = put(followers[n % 3], f"p{n % 20}", n % 16)
    deleted = followers[0].store.images.delete("p5")
    assert deleted == last + 1
    until(lambda: all(follower.applied == deleted for follower in followers))
    assert seqs(followers[0]) == seqs(followers[1]) == seqs(followers[2])
    assert len(followers[0].index) == 19
    for follower in followers:
        seq, memory, database = follower.checksums()
        assert (seq, memory) == (deleted, database)


def test_own_writes_are_applied_before_the_call_returns(open_follower: OpenFollower) -> None:
    one, two = open_follower(), open_follower()
    put(two, "other", 1)
    seq = put(one, "mine", 1)
    one.catch_up(seq)
    assert one.applied == seq == 2
    assert seqs(one) == [1, 2]
    one.catch_up(1)
    one.catch_up()
    assert seqs(one) == [1, 2]
    assert seqs(two) == []


def test_a_follower_behind_the_pruned_changes_reloads(open_follower: OpenFollower) -> None:
    behind, writer = open_follower(), open_follower()
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
def test_a_database_restored_to_an_older_state_is_reloaded(
    further: int, open_follower: OpenFollower
) -> None:
    """Other processes may have assigned the same numbers again before a follower notices."""
    follower, other = open_follower(), open_follower()
    for n in range(4):
        put(follower, f"p{n}", n)
    follower.catch_up()
    with follower.store.database.transaction() as connection:
        connection.execute(sa.delete(schema.images).where(schema.images.c.seq > 2))
        connection.execute(sa.delete(schema.codes).where(schema.codes.c.seq > 2))
        connection.execute(sa.delete(schema.feed).where(schema.feed.c.seq > 2))
        if follower.store.database.is_postgres:
            connection.execute(sa.text("SELECT setval('feed_seq_seq', 2)"))
        else:
            connection.execute(sa.text("UPDATE sqlite_sequence SET seq = 2 WHERE name = 'feed'"))
    for n in range(further):
        put(other, f"q{n}", n)
    follower.catch_up()
    assert seqs(follower) == list(range(1, 3 + further))
    _, memory, database = follower.checksums()
    assert memory == database


def test_checksums_agree_after_the_database_falls_behind_a_follower(
    open_follower: OpenFollower,
) -> None:
    follower = open_follower()
    follower.catch_up(put(follower, "a", 1))
    with follower.store.database.transaction() as connection:
        connection.execute(sa.delete(schema.images))
        connection.execute(sa.delete(schema.codes))
        connection.execute(sa.delete(schema.feed))
    seq, memory, database = follower.checksums()
    assert (seq, memory) == (0, database)


def test_a_model_that_comes_back_is_followed_again(open_follower: OpenFollower) -> None:
    follower = open_follower()
    follower.catch_up(put(follower, "a", 1))
    follower.start()
    with follower.store.database.transaction() as connection:
        connection.execute(sa.update(schema.models).values(active=False))
    until(lambda: follower.missing_model is not None)
    with follower.store.database.transaction() as connection:
        connection.execute(sa.update(schema.models).values(active=True))
    until(lambda: follower.missing_model is None)
    seq = put(follower, "b", 2)
    until(lambda: follower.applied == seq)
    assert seqs(follower) == [1, 2]


def test_checksums_differ_if_a_code_in_the_database_changes(open_follower: OpenFollower) -> None:
    follower = open_follower()
    put(follower, "a", 1)
    follower.catch_up()
    with follower.store.database.transaction() as connection:
        connection.execute(sa.update(schema.codes).values(code=b"\x07"))
    _, memory, database = follower.checksums()
    assert memory != database


def test_compacting_keeps_live_codes(
    open_follower: OpenFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.index.index, "COMPACT_ROWS", 10)
    follower = open_follower()
    old = follower.index
    for n in range(40):
        follower.catch_up(put(follower, f"p{n % 4}", n % 16))
    assert follower.index is not old
    assert seqs(follower) == [37, 38, 39, 40]
    _, memory, database = follower.checksums()
    assert memory == database


def test_a_seq_counts_as_applied_once_every_living_replica_has_applied_it(
    open_follower: OpenFollower,
) -> None:
    one, two = open_follower(), open_follower()
    one.start()
    seq = put(one, "a", 1)
    until(lambda: one.applied == seq)
    assert one.store.replicas.have_applied(seq) is False  # ``two`` is alive and does not follow
    two.start()
    until(lambda: one.store.replicas.have_applied(seq))
    assert two.applied == seq
    assert {replica.name for replica in one.store.replicas.alive()} == {
        one.heartbeat.name,
        two.heartbeat.name,
    }
    two.stop()
    assert [replica.name for replica in one.store.replicas.alive()] == [one.heartbeat.name]


def test_a_replica_that_stalls_is_waited_for_only_until_its_heartbeat_is_old(
    open_follower: OpenFollower,
) -> None:
    one, stalled = open_follower(), open_follower()
    one.start()
    seq = put(one, "a", 1)
    assert stalled.heartbeat.name in {replica.name for replica in one.store.replicas.alive()}
    until(lambda: one.store.replicas.have_applied(seq))  # once its heartbeat is 5 s old
    assert stalled.applied == 0


def test_codes_of_another_model_are_not_applied(open_follower: OpenFollower) -> None:
    follower = open_follower()
    follower.store.models.adopt("n", FILES)
    follower.store.images.put([Put("a", {"n": b"\x01"}, "s", 1, 1, 1, None)])
    with pytest.raises(ModelChanged, match="the active model is n, not m"):
        follower.catch_up()
    assert follower.missing_model == "n"
    assert len(follower.index) == 0


def seqs_of(follower: FeedFollower, model: str) -> list[int]:
    found = follower.indexes[model].search(np.zeros((1, M, 16), np.float32), 1000)[0]
    return sorted(seq for seq, _ in found)


def put_both(follower: FeedFollower, id: str, code: int) -> int:
    codes = {"m": bytes([code]), "n": bytes([code ^ 1])}
    return follower.store.images.put([Put(id, codes, f"{id}-{code}", 4, 3, 100, None)])[0].seq


def test_the_codes_of_several_models_are_followed_and_any_may_be_active(
    open_follower: OpenFollower,
) -> None:
    follower, other = open_follower(), open_follower()
    put(follower, "a", 1)
    follower.store.models.add("n", FILES)
    put_both(follower, "b", 2)
    follower.store.models.fill("n", {1: b"\x00"})
    assert follower.store.models.complete("n")
    follower.load_model("n")  # the follower is behind the codes that it loads
    put_both(follower, "b", 3)
    other.catch_up()
    other.load_model("n")
    for process in (follower, other):
        process.catch_up()
        assert seqs_of(process, "m") == seqs_of(process, "n") == [1, 3]
    follower.store.models.activate("n")
    for process in (follower, other):
        process.catch_up()
        assert process.model == "n"
        seq, memory, database = process.checksums()
        assert (seq, memory) == (3, database)
    follower.store.models.activate("m")
    put_both(other, "c", 4)
    follower.catch_up()
    assert follower.model == "m"
    assert seqs_of(follower, "m") == seqs_of(follower, "n") == [1, 3, 4]
    follower.drop_model("n")
    assert list(follower.indexes) == ["m"]


def test_an_index_of_a_model_that_was_deleted_and_added_again_is_dropped(
    open_follower: OpenFollower,
) -> None:
    follower = open_follower()
    follower.store.models.add("n", FILES)
    put_both(follower, "a", 1)
    follower.catch_up()
    follower.load_model("n")
    follower.store.models.delete("n")
    put(follower, "b", 2)
    follower.store.models.add("n", FILES)
    follower.catch_up()
    assert list(follower.indexes) == ["m"]


def test_searches_continue_while_a_follower_reloads(open_follower: OpenFollower) -> None:
    follower = open_follower()
    for n in range(50):
        put(follower, f"p{n}", n % 16)
    follower.catch_up()
    whole = seqs(follower)
    counts: set[int] = set()
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            counts.add(len(seqs(follower)))

    searcher = threading.Thread(target=search)
    searcher.start()
    for _ in range(20):
        follower.load()
    done.set()
    searcher.join()
    assert counts == {50}
    assert seqs(follower) == whole


def test_codes_loaded_from_a_file_are_brought_up_to_date(
    open_follower: OpenFollower, tmp_path: Path, caplog
) -> None:
    file = tmp_path / "codes"
    first = open_follower(file)
    first.start()
    for n in range(5):
        put(first, f"p{n}", n)
    first.catch_up()
    first.stop()
    assert file.is_file()
    writer = open_follower()
    put(writer, "p1", 7)
    writer.store.images.delete("p4")
    caplog.set_level("INFO")
    again = open_follower(file)
    assert f"5 codes from {file}, as of change 5" in caplog.text
    assert seqs(again) == [1, 3, 4, 6]
    _, memory, database = again.checksums()
    assert memory == database


def test_codes_of_a_file_older_than_the_pruned_changes_are_reloaded(
    open_follower: OpenFollower, tmp_path: Path
) -> None:
    file = tmp_path / "codes"
    first = open_follower(file)
    first.start()
    put(first, "a", 1)
    first.catch_up()
    first.stop()
    writer = open_follower()
    put(writer, "b", 2)
    writer.store.images.delete("a")
    time.sleep(0.02)
    assert writer.store.feed.prune(0) == 3
    assert seqs(open_follower(file)) == [2]


def test_the_file_of_codes_is_written_from_time_to_time(
    open_follower: OpenFollower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.index.follower, "SAVE_SECONDS", 0.1)
    file = tmp_path / "codes"
    follower = open_follower(file)
    follower.start()
    put(follower, "a", 1)
    until(file.is_file)
    assert seqs(open_follower(file)) == [1]
