import multiprocessing
import sqlite3
import time
from pathlib import Path

import pytest

from trainer.__main__ import main
from trainer.frozen import cache as module
from trainer.frozen.cache import FeatureCache, folder

LARGE = 10**9


def keys(first: int, count: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(first, first + count)]


def test_values_are_found_again_by_another_run(tmp_path: Path) -> None:
    first = FeatureCache(tmp_path, LARGE)
    stored = {key: key[-2:] * 100 for key in keys(0, 1200)}
    first.put(stored)
    first.close()
    second = FeatureCache(tmp_path, LARGE)
    assert second.get([*keys(0, 1200), b"absent"]) == stored
    assert second.usage().entries == 1200


def test_the_entries_that_were_not_used_for_longest_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    limit = 800_000
    cache = FeatureCache(tmp_path, limit)
    for batch in range(10):
        monkeypatch.setattr(time, "time", lambda batch=batch: now + 7200 * batch)
        cache.put(dict.fromkeys(keys(100 * batch, 100), bytes(1000)))
        cache.get(keys(0, 100))  # the first are always in use
    assert cache.usage().bytes <= limit
    assert len(cache.get(keys(0, 100))) == 100
    assert len(cache.get(keys(900, 100))) == 100
    assert not cache.get(keys(100, 100))


def test_a_limit_of_zero_turns_it_off(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "none", 0)
    cache.put({b"key": b"value"})
    assert not cache.get([b"key"]) and not cache.on
    assert not (tmp_path / "none").exists()


def test_a_full_disk_turns_it_off_and_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = FeatureCache(tmp_path, LARGE)
    cache.put(dict.fromkeys(keys(0, 10), bytes(100)))
    cache._rows("PRAGMA max_page_count = 1")  # SQLite's error is that of a full disk
    for _ in range(3):
        cache.put(dict.fromkeys(keys(10, 1000), bytes(1000)))
    assert not cache.get(keys(0, 10))
    printed = capsys.readouterr().err
    assert printed.count("no longer cached") == 1
    assert "database or disk is full" in printed
    again = FeatureCache(tmp_path, LARGE)
    assert len(again.get(keys(0, 1010))) == 10


@pytest.mark.parametrize("damage", ["file", "folder"])
def test_a_place_that_cannot_be_used_turns_it_off(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "cache"
    if damage == "file":
        place.mkdir()
        (place / module.NAME).write_bytes(b"no database" * 1000)
    else:
        place.write_text("a file")
    cache = FeatureCache(place, LARGE)
    cache.put({b"key": b"value"})
    assert not cache.get([b"key"])
    assert capsys.readouterr().err.count("no longer cached") == 1


def write(place: Path, first: int) -> None:
    cache = FeatureCache(place, LARGE)
    for batch in range(20):
        cache.put({key: key for key in keys(first + 50 * batch, 50)})
        assert len(cache.get(keys(first, 50))) == 50
    cache.close()


def test_two_runs_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    runs = [context.Process(target=write, args=(tmp_path, first)) for first in (0, 500)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    found = FeatureCache(tmp_path, LARGE).get(keys(0, 1500))
    assert found == {key: key for key in keys(0, 1500)}


def test_the_command_shows_and_clears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(module.PLACE, str(tmp_path))
    cache = FeatureCache(folder(), LARGE)
    cache.put(dict.fromkeys(keys(0, 1000), bytes(2000)))
    cache.close()
    assert main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path / module.NAME) in shown
    assert "entries  1,000" in shown and "limit    10 GB" in shown
    large = (tmp_path / module.NAME).stat().st_size
    assert main(["cache", "--clear", "--cache-gb", "0"]) == 0
    shown = capsys.readouterr().out
    assert "entries  0" in shown and "the cache is off" in shown
    assert (tmp_path / module.NAME).stat().st_size < large / 10


def test_the_file_is_a_database_that_others_can_read(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, LARGE)
    cache.put({b"key": b"value"})
    cache.close()
    with sqlite3.connect(tmp_path / module.NAME) as database:
        assert database.execute("SELECT value FROM features").fetchall() == [(b"value",)]
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
