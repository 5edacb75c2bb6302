from pathlib import Path

import numpy as np
import pytest

from gpq.system import files
from service.database.records import Mark
from service.index import index_file
from service.index.index import Codes
from service.index.index_file import HEADER_BYTES, Origin

ORIGIN = Origin("the database", "a model", 3)
MARK = Mark(77, 1234.5678901)
CODES = Codes(np.array([3, 5, 70], dtype=np.int64), np.arange(9, dtype=np.uint8).reshape(3, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "codes"
    index_file.save(path, ORIGIN, MARK, CODES)
    return path


def test_saved_codes_are_loaded(path: Path) -> None:
    found = index_file.load(path, ORIGIN)
    assert found is not None
    mark, codes = found
    assert mark == MARK
    assert codes.seqs.tolist() == [3, 5, 70]
    assert (codes.packed == CODES.packed).all()
    assert [p.name for p in path.parent.iterdir()] == ["codes"]


def test_an_empty_index_is_saved_too(tmp_path: Path) -> None:
    empty = Codes.gather([], 3)
    index_file.save(tmp_path / "codes", ORIGIN, MARK, empty)
    found = index_file.load(tmp_path / "codes", ORIGIN)
    assert found is not None
    assert len(found[1].seqs) == 0


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        (Origin("another", "a model", 3), "its database is the database, not another"),
        (Origin("the database", "b", 3), "its model is a model, not b"),
        (Origin("the database", "a model", 2), "its code_bytes is 3, not 2"),
    ],
)
def test_codes_of_another_origin_are_not_used(origin: Origin, why: str, path: Path, caplog) -> None:
    assert index_file.load(path, origin) is None
    assert f"{path} is not used; the codes are read from the database instead: {why}" in caplog.text


@pytest.mark.parametrize("at", [0, 5, HEADER_BYTES, HEADER_BYTES + 30, -1])
def test_a_damaged_file_is_not_used(at: int, path: Path, caplog) -> None:
    whole = bytearray(path.read_bytes())
    whole[at] ^= 0x5A
    path.write_bytes(whole)
    assert index_file.load(path, ORIGIN) is None
    assert "is not used" in caplog.text


@pytest.mark.parametrize("size", [0, 10, HEADER_BYTES, HEADER_BYTES + 11])
def test_a_truncated_file_is_not_used(size: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:size])
    assert index_file.load(path, ORIGIN) is None


def test_a_missing_file_is_not_logged(tmp_path: Path, caplog) -> None:
    assert index_file.load(tmp_path / "none", ORIGIN) is None
    assert not caplog.text


def test_a_full_disk_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        index_file.save(path, ORIGIN, Mark(78, 1.0), CODES)
    assert index_file.load(path, ORIGIN) is not None
    assert [p.name for p in path.parent.iterdir()] == ["codes"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"rows": 3', b'"rows": Infinity'),
        (b'"seq": 77', b'"seq": Infinity'),
        (b'"created": 1234.5678901', b'"created": Infinity'),
        (b'"created": 1234.5678901', b'"created": NaN'),
        (b'"seq": 77', b'"seq": ' + b"[" * 700),
    ],
)
def test_a_header_of_strange_numbers_is_not_used(
    old: bytes, new: bytes, path: Path, caplog
) -> None:
    header, body = path.read_bytes()[:HEADER_BYTES], path.read_bytes()[HEADER_BYTES:]
    assert old in header
    path.write_bytes(header.replace(old, new).rstrip().ljust(HEADER_BYTES)[:HEADER_BYTES] + body)
    assert index_file.load(path, ORIGIN) is None
    assert "is not used" in caplog.text
