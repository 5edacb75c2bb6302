import errno
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from service.errors import StorageFull, Unavailable
from service.originals.local import LocalOriginals
from service.originals.originals import NoOriginals, Originals, open_originals
from service.originals.remote import PART_BYTES, RemoteOriginals

KEY = "ab" + "0" * 62
OTHER = "cd" + "1" * 62


def test_the_location_decides_the_kind_of_store(tmp_path: Path) -> None:
    assert isinstance(open_originals("none"), NoOriginals)
    assert isinstance(open_originals(str(tmp_path / "a")), LocalOriginals)
    assert isinstance(open_originals(f"file://{tmp_path}/b"), LocalOriginals)
    assert isinstance(open_originals("memory://c"), RemoteOriginals)
    with pytest.raises(ValueError, match="GPQ_IMAGE_STORE=warp://x"):
        open_originals("warp://x")


@pytest.mark.parametrize(
    "location",
    [
        "warp://someone:hunter2@shop.example/images?token=hunter3",
        "warp://someone:hunter2@hunter3@shop.example/images",
        "simplecache::warp://someone:hunter2@shop.example/images",
        "file://someone:hunter2@shop.example/images",
        "file://someone@shop.example/images?hunter3",
    ],
)
def test_the_error_of_a_wrong_location_keeps_its_secrets(location: str) -> None:
    with pytest.raises(ValueError, match=r"GPQ_IMAGE_STORE=.*//shop\.example/images: ") as raised:
        open_originals(location)
    for secret in ("someone", "hunter2", "hunter3"):
        assert secret not in str(raised.value)


def test_percent_escapes_count_in_a_url_and_not_in_a_plain_path(
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
def test_an_original_is_read_back_as_it_was_put(location: str, tmp_path: Path) -> None:
    originals = open_originals(location if "://" in location else str(tmp_path / location))
    assert originals.get(KEY) is None
    originals.put({KEY: b"bytes"})
    originals.put({KEY: b"bytes", OTHER: b"other"})
    assert (originals.get(KEY), originals.get(OTHER)) == (b"bytes", b"other")


def test_a_store_named_none_keeps_nothing() -> None:
    originals = NoOriginals()
    originals.put({KEY: b"bytes"})
    assert originals.get(KEY) is None


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    originals = LocalOriginals(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull):
        originals.put({KEY: b"bytes", OTHER: b"other"})
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
    # The new file first, then each folder once.
    assert synced == [third, KEY[:2], OTHER[:2], "root"]


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "images")
    else:
        yield f"memory://{uuid.uuid4().hex}"


def grow_old(originals: Originals) -> None:
    """Sets the last change of every file to two hours ago."""
    if isinstance(originals, LocalOriginals):
        hours_ago = time.time() - 7200
        for path in originals.root.rglob("*"):
            os.utime(path, (hours_ago, hours_ago))
    elif isinstance(originals, RemoteOriginals):
        for file in originals.files.store.values():
            file.modified -= timedelta(hours=2)


def none_used(keys: Sequence[str]) -> set[str]:
    return set()


def test_a_sweep_removes_only_old_originals_that_were_set_aside_long_ago(place: str) -> None:
    originals = open_originals(place)
    young = "ef" + "2" * 62
    for key in (KEY, OTHER):
        originals.put({key: b"bytes"})
    grow_old(originals)
    originals.put({young: b"bytes"})
    used = {OTHER}
    for _ in range(2):  # KEY was set aside only by the first sweep, too recently to be removed
        assert originals.sweep(lambda keys: used & set(keys)) == 0
        assert {originals.get(key) for key in (KEY, OTHER, young)} == {b"bytes"}
    grow_old(originals)
    assert originals.sweep(lambda keys: used & set(keys)) == 1
    assert (originals.get(KEY), originals.get(OTHER)) == (None, b"bytes")
    assert originals.get(young) == b"bytes"  # only set aside


def test_a_second_put_resets_the_age_of_an_original(place: str) -> None:
    originals = open_originals(place)
    originals.put({KEY: b"bytes"})
    grow_old(originals)
    originals.put({KEY: b"bytes"})
    assert originals.sweep(none_used) == 0
    assert originals.has(KEY, 5)  # not even set aside


@pytest.fixture
def aside(place: str) -> Originals:
    """A store in which a sweep set KEY aside two hours ago."""
    originals = open_originals(place)
    originals.put({KEY: b"bytes"})
    grow_old(originals)
    originals.sweep(none_used)
    grow_old(originals)
    assert not originals.has(KEY, 5)
    return originals


def test_an_original_set_aside_can_still_be_read(aside: Originals) -> None:
    assert aside.get(KEY) == b"bytes"
    parts = aside.parts(KEY)
    assert parts is not None and b"".join(parts.between(0, 5)) == b"bytes"
    assert parts.read(1, 3) == b"yt"


def test_a_sweep_restores_an_original_set_aside_that_is_used_again(aside: Originals) -> None:
    assert aside.sweep(lambda keys: {KEY} & set(keys)) == 0
    assert aside.has(KEY, 5) and aside.get(KEY) == b"bytes"


@pytest.mark.parametrize("damaged", [False, True])
def test_a_put_restores_an_original_set_aside(aside: Originals, damaged: bool) -> None:
    if damaged and isinstance(aside, LocalOriginals):
        (aside.root / KEY[:2] / f"{KEY}.swept").write_bytes(b"bites")
    aside.put({KEY: b"bytes"})
    assert aside.has(KEY, 5) and aside.get(KEY) == b"bytes"
    aside.sweep(lambda keys: {KEY} & set(keys))
    grow_old(aside)
    assert aside.sweep(lambda keys: {KEY} & set(keys)) == 0
    assert aside.has(KEY, 5) and aside.get(KEY) == b"bytes"


def test_a_put_during_a_sweep_is_kept(place: str) -> None:
    """Covers a sweep that would set the original aside and one that would remove it."""
    originals = open_originals(place)

    def put_meanwhile(keys: Sequence[str]) -> set[str]:
        originals.put({KEY: b"bytes"})
        return set()

    originals.put({KEY: b"bytes"})
    for sweeps_before in range(2):
        for _ in range(sweeps_before):
            grow_old(originals)
            originals.sweep(none_used)
        grow_old(originals)
        originals.sweep(put_meanwhile)
        assert originals.has(KEY, 5) and originals.get(KEY) == b"bytes"


def test_a_reader_finds_an_original_that_a_sweep_restores_meanwhile(
    aside: Originals, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []

    def restored_after_the_first_read(real: Callable[..., bytes]) -> Callable[..., bytes]:
        def read(*arguments: object) -> bytes:
            reads.append(arguments)
            if len(reads) == 2:
                monkeypatch.undo()
                aside.sweep(lambda keys: {KEY} & set(keys))
            return real(*arguments)

        return read

    if isinstance(aside, RemoteOriginals):
        read = restored_after_the_first_read(aside.files.cat_file)
        monkeypatch.setattr(aside.files, "cat_file", read)
    else:
        read = restored_after_the_first_read(Path.read_bytes)
        monkeypatch.setattr(Path, "read_bytes", read)
    assert aside.get(KEY) == b"bytes"
    assert len(reads) == 2


def test_nothing_is_swept_while_a_backup_forbids_it(place: str) -> None:
    """The file that forbids sweeps is described in docs/operating.md."""
    originals = open_originals(place)
    assert originals.claim("a", 1)
    hold = "database-backup.txt"
    if isinstance(originals, LocalOriginals):
        (originals.root / hold).touch()
        assert not originals.claim("a", 2)
        (originals.root / hold).unlink()
    elif isinstance(originals, RemoteOriginals):
        originals.files.pipe_file(f"{originals.root}/{hold}", b"")
        assert not originals.claim("a", 2)
        originals.files.rm_file(f"{originals.root}/{hold}")
    assert originals.claim("a", 2)


def test_a_sweep_tidies_up_after_killed_processes(tmp_path: Path) -> None:
    """One process was killed while it wrote an original, another while it swept two originals."""
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


def test_only_a_store_of_a_single_database_may_be_swept(place: str) -> None:
    one, two = open_originals(place), open_originals(place)
    assert one.claim("a", 1)
    one.put({KEY: b"bytes"})
    assert two.claim("a", 2) and one.claim("a", 2)
    assert not two.claim("b", 5)
    assert not one.claim("a", 3)  # unknown originals may belong to the other database


def test_a_database_restored_to_an_older_state_does_not_sweep(place: str) -> None:
    originals = open_originals(place)
    assert originals.claim("a", 7)
    assert not originals.claim("a", 6)
    assert originals.claim("a", 7) and originals.claim("a", 8)


def test_a_store_that_was_used_before_any_claim_is_not_swept(place: str) -> None:
    originals = open_originals(place)
    originals.put({KEY: b"bytes"})
    assert not originals.claim("a", 1) and not originals.claim("a", 2)


def test_the_claim_of_an_earlier_version_counts(tmp_path: Path) -> None:
    (tmp_path / "database.txt").write_text("a")
    originals = LocalOriginals(tmp_path)
    originals.put({KEY: b"bytes"})
    assert originals.claim("a", 1) and originals.claim("a", 1)
    assert not originals.claim("b", 1)


def test_a_store_on_a_full_disk_may_still_be_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, temporary: Path) -> NoReturn:
        raise OSError(errno.ENOSPC, "no space left")

    originals = LocalOriginals(tmp_path)
    assert originals.claim("a", 1)
    monkeypatch.setattr("service.originals.local.replacing", full)
    assert originals.claim("a", 2)
    with pytest.raises(StorageFull):
        originals.claim("b", 1)


def test_a_claim_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    originals = LocalOriginals(tmp_path / "images")
    (tmp_path / "images").rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        originals.claim("a", 1)
    (tmp_path / "away").rename(tmp_path / "images")
    assert originals.claim("a", 1)


def test_a_sweep_leaves_files_of_others_alone(tmp_path: Path) -> None:
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


def test_a_store_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    originals = LocalOriginals(tmp_path)
    (tmp_path / KEY[:2]).write_text("not a folder")
    for call in (lambda: originals.put({KEY: b"x"}), lambda: originals.get(KEY)):
        with pytest.raises(Unavailable):
            call()


def test_large_originals_are_read_in_parts(place: str) -> None:
    originals = open_originals(place)
    for size in (0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES):
        data = os.urandom(size)
        key = hashlib.sha256(data).hexdigest()
        originals.put({key: data})
        parts = originals.parts(key)
        assert parts is not None and parts.size == size
        assert all(len(part) <= PART_BYTES for part in parts.between(0, size))
        assert b"".join(parts.between(0, size)) == data
    assert originals.parts(OTHER) is None


def test_a_put_replaces_a_damaged_original(place: str) -> None:
    originals = open_originals(place)
    originals.put({KEY: b"bytes"})
    assert originals.has(KEY, 5) and not originals.has(OTHER, 5)
    if isinstance(originals, LocalOriginals):
        file = originals.root / KEY[:2] / KEY
        file.write_bytes(b"bites")
        originals.put({KEY: b"bytes"})
        assert originals.get(KEY) == b"bytes"
        file.write_bytes(b"")
    else:
        originals.files.pipe_file(originals._key(KEY), b"")  # type: ignore[attr-defined]
    assert not originals.has(KEY, 5)
    originals.put({KEY: b"bytes"})
    assert originals.get(KEY) == b"bytes" and originals.has(KEY, 5)
