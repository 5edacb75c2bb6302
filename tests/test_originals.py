import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.originals import LocalOriginals, NoOriginals, RemoteOriginals, open_originals
from service.problems import Problem

KEY = "ab" + "0" * 62
OTHER = "cd" + "1" * 62


def test_the_kind_follows_the_location(tmp_path: Path) -> None:
    assert isinstance(open_originals("none"), NoOriginals)
    assert isinstance(open_originals(str(tmp_path / "a")), LocalOriginals)
    assert isinstance(open_originals(f"file://{tmp_path}/b"), LocalOriginals)
    assert isinstance(open_originals("memory://c"), RemoteOriginals)
    with pytest.raises(ValueError, match="GPQ_IMAGE_STORE=warp://x"):
        open_originals("warp://x")


def test_a_folder_is_named_as_it_is_and_in_a_url_by_the_rules_of_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for location, folder in {
        "data/im#1": "data/im#1",
        "data/a%20b?": "data/a%20b?",
        f"file://{tmp_path}/c%20d": "c d",
        f"file://localhost{tmp_path}/e": "e",
    }.items():
        open_originals(location).put({KEY: b"bytes"})
        assert (tmp_path / folder / KEY[:2] / KEY).is_file()
    with pytest.raises(ValueError, match="this machine"):
        open_originals("file://host/data")


@pytest.mark.parametrize("location", ["files", "memory://originals"])
def test_what_is_put_is_got(location: str, tmp_path: Path) -> None:
    originals = open_originals(location if "://" in location else str(tmp_path / location))
    assert originals.get(KEY) is None
    originals.put({KEY: b"bytes"})
    originals.put({KEY: b"bytes", OTHER: b"other"})
    assert (originals.get(KEY), originals.get(OTHER)) == (b"bytes", b"other")


def test_none_keeps_nothing() -> None:
    originals = NoOriginals()
    originals.put({KEY: b"bytes"})
    assert originals.get(KEY) is None


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    originals = LocalOriginals(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Problem) as caught:
        originals.put({KEY: b"bytes", OTHER: b"other"})
    assert caught.value.status == 507
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_every_name_is_on_the_disk_when_a_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.partition(".")[0])
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    originals = LocalOriginals(tmp_path / "root")
    beside = KEY[:-1] + "1"
    for key, expected in {
        KEY: [KEY, KEY[:2], "root"], beside: [beside, KEY[:2]], OTHER: [OTHER, OTHER[:2], "root"],
    }.items():  # fmt: skip
        originals.put({key: b"bytes"})
        assert synced == expected
        synced.clear()
    another = LocalOriginals(tmp_path / "root")
    another.put({KEY: b"bytes"})
    assert synced == [KEY[:2], "root"]
    synced.clear()
    third = KEY[:-1] + "2"
    another.put({OTHER: b"bytes", third: b"bytes", beside: b"bytes"})
    assert synced == [third, KEY[:2], OTHER[:2], "root"]  # each folder once, the new file first


def test_sweep_takes_only_what_is_old_and_unused(tmp_path: Path) -> None:
    originals = LocalOriginals(tmp_path)
    young = "ef" + "2" * 62
    for key in (KEY, OTHER, young):
        originals.put({key: b"bytes"})
    hours_ago = time.time() - 7200
    for key in (KEY, OTHER):
        os.utime(tmp_path / key[:2] / key, (hours_ago, hours_ago))
    assert originals.sweep(lambda keys: {OTHER} & set(keys)) == 1
    assert originals.get(KEY) is None
    assert originals.get(OTHER) == originals.get(young) == b"bytes"


def test_putting_again_makes_an_original_young(tmp_path: Path) -> None:
    originals = LocalOriginals(tmp_path)
    originals.put({KEY: b"bytes"})
    hours_ago = time.time() - 7200
    os.utime(tmp_path / KEY[:2] / KEY, (hours_ago, hours_ago))
    originals.put({KEY: b"bytes"})
    assert originals.sweep(lambda keys: set()) == 0


def test_a_sweep_gives_back_what_a_put_made_young_meanwhile(tmp_path: Path) -> None:
    originals = LocalOriginals(tmp_path)
    originals.put({KEY: b"bytes"})
    hours_ago = time.time() - 7200
    os.utime(tmp_path / KEY[:2] / KEY, (hours_ago, hours_ago))

    def put_meanwhile(keys: Sequence[str]) -> set[str]:
        originals.put({KEY: b"bytes"})
        return set()

    assert originals.sweep(put_meanwhile) == 0
    assert originals.get(KEY) == b"bytes"


def test_a_sweep_tidies_up_after_killed_processes(tmp_path: Path) -> None:
    """A process was killed while it wrote one original, and while it swept two others."""
    originals = LocalOriginals(tmp_path)
    for key in (KEY, OTHER):
        originals.put({key: key.encode()})
        path = tmp_path / key[:2] / key
        path.rename(path.with_name(f"{key}.swept"))
    half = tmp_path / "ab" / f"{KEY}.1-2-3.tmp"
    half.write_bytes(b"hal")
    assert originals.sweep(lambda keys: {OTHER} & set(keys)) == 0
    assert originals.get(OTHER) == OTHER.encode()
    assert half.exists()
    hours_ago = time.time() - 7200
    for path in tmp_path.rglob("*.*"):
        os.utime(path, (hours_ago, hours_ago))
    originals.sweep(lambda keys: {OTHER} & set(keys))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [OTHER]


def test_only_the_database_that_found_it_empty_may_sweep_a_place(tmp_path: Path) -> None:
    one, two = LocalOriginals(tmp_path), LocalOriginals(tmp_path)
    assert one.claim("a") is True
    one.put({KEY: b"bytes"})
    assert two.claim("b") is False
    assert two.claim("a") is True
    used = LocalOriginals(tmp_path / "used")
    used.put({KEY: b"bytes"})
    assert used.claim("a") is False


def test_a_sweep_leaves_alone_what_is_not_ours(tmp_path: Path) -> None:
    originals = LocalOriginals(tmp_path)
    others = [tmp_path / name for name in ("01/IMG_2001.jpg", "de/album/1.jpg", f"zz/{KEY}", "x")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    hours_ago = time.time() - 7200
    for path in tmp_path.rglob("*"):
        os.utime(path, (hours_ago, hours_ago))
    assert originals.sweep(lambda keys: set()) == 0
    assert all(path.read_bytes() == b"mine" for path in others)


def test_a_store_that_does_not_answer_is_a_503(tmp_path: Path) -> None:
    originals = LocalOriginals(tmp_path)
    (tmp_path / KEY[:2]).write_text("not a folder")
    for call in (lambda: originals.put({KEY: b"x"}), lambda: originals.get(KEY)):
        with pytest.raises(Problem) as caught:
            call()
        assert caught.value.status == 503
