import errno
import os
from pathlib import Path

import pytest

from gpq.system import files
from gpq.system.files import MANY, replacing, sync_folders, write_together
from gpq.system.syncfs import syncfs


def test_the_new_file_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path, tmp_path / "mine.tmp") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_written_together_or_none_is(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_together({one: b"1", two: b"2"}, ".mine")
    assert (one.read_bytes(), two.read_bytes()) == (b"1", b"2")
    assert sorted(tmp_path.iterdir()) == [one, two]
    with pytest.raises(FileNotFoundError):
        write_together({tmp_path / "three": b"3", tmp_path / "missing" / "four": b"4"}, ".mine")
    assert sorted(tmp_path.iterdir()) == [one, two]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lists the calls that write to the disk from now on."""
    calls: list[str] = []

    def one(descriptor: int) -> None:
        calls.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")

    def all_of_them(descriptor: int) -> bool:
        calls.append("syncfs")
        return syncfs(descriptor)

    monkeypatch.setattr(os, "fsync", one)
    monkeypatch.setattr(files, "syncfs", all_of_them)
    return calls


def test_many_files_are_synced_by_syncing_their_file_system(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {tmp_path / str(n): b"x" for n in range(MANY - 1)}
    many = {tmp_path / str(n): b"x" for n in range(MANY)}
    write_together(few, ".tmp")
    assert synced == ["fsync 0.tmp", "fsync 1.tmp", "fsync 2.tmp"]
    synced.clear()
    write_together(many, ".tmp")
    assert synced == ["syncfs"]
    synced.clear()
    sync_folders([tmp_path] * MANY)
    assert synced == ["syncfs"]
    synced.clear()
    monkeypatch.setattr(files, "syncfs", lambda descriptor: False)  # as on an old Linux
    write_together(many, ".tmp")
    assert len(synced) == MANY


def test_files_on_several_file_systems_are_synced_one_by_one(
    tmp_path: Path, synced: list[str]
) -> None:
    sync_folders([tmp_path] * MANY + [Path("/proc/sys")])
    assert synced == [f"fsync {tmp_path.name}"] * MANY + ["fsync sys"]


def test_a_failed_sync_raises_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "syncfs", full)
    with pytest.raises(OSError, match="No space"):
        write_together({tmp_path / str(n): b"x" for n in range(MANY)}, ".tmp")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        syncfs(-1)
