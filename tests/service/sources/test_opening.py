import gzip
import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from service.errors import SourceError
from service.settings import ID_PATTERN
from service.sources.entries import id_of
from service.sources.opening import open_source

MAX_BYTES = 1000


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def tar(path: Path, *names: str) -> Path:
    mode = "w:gz" if path.suffix == ".gz" else "w"
    with tarfile.open(path, mode) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


def names_and_bytes(path: Path, within: Path | None = None) -> dict[str, bytes | str]:
    source = open_source(path, within, MAX_BYTES)
    found: dict[str, bytes | str] = {}
    for entry in source.entries(Event()):
        try:
            found[entry.name] = entry.read()
        except SourceError as error:
            found[entry.name] = str(error)
    assert source.count(Event()) == len(found)
    return found


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("a/b c.jpg", "a:b~20c.jpg"),
        ("ü.png", "~C3~BC.png"),
        ("a:b", "a~3Ab"),
        ("a~20", "a~7E20"),
        ("-_.Z9", "-_.Z9"),
    ],
)
def test_ids_of_names(name: str, id: str) -> None:
    assert id_of(name) == id


def test_names_that_differ_have_ids_that_differ_and_fit() -> None:
    import re

    names = ["x" * 200, "x" * 201, "é" * 60, os.fsdecode(b"\xff/\x00"), "a/b", "a:b", "a~3Ab"]
    ids = {id_of(name) for name in names}
    assert len(ids) == len(names)
    assert all(re.fullmatch(ID_PATTERN, id) for id in ids)


def test_a_folder_is_read_in_order_without_hidden_names(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "b/2.jpg", "b/1.jpg", "a.jpg", "c/d/e.jpg", ".hidden/x.jpg", "b/.DS_Store")
    (root / "here").symlink_to(root / "a.jpg")
    found = names_and_bytes(root)
    assert list(found) == ["a.jpg", "here", "b/1.jpg", "b/2.jpg", "c/d/e.jpg"]
    assert found["b/1.jpg"] == b"b/1.jpg" and found["here"] == b"a.jpg"


def test_a_pipe_or_a_file_that_is_too_large_fails_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "a.jpg")
    os.mkfifo(root / "pipe")
    (root / "large.jpg").write_bytes(bytes(MAX_BYTES + 1))
    sizes = {
        entry.name: entry.size() for entry in open_source(root, None, MAX_BYTES).entries(Event())
    }
    assert sizes == {"a.jpg": 5, "large.jpg": 0, "pipe": 0}
    found = names_and_bytes(root)
    assert found == {
        "a.jpg": b"a.jpg",
        "large.jpg": "the file has 1001 bytes; at most 1000 are accepted (GPQ_MAX_BODY_BYTES)",
        "pipe": "there is no such file",
    }


def test_a_csv_manifest(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "b/c.jpg")
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        'path,id,price,metadata\na.jpg,shoe-1,9,"{""size"": 4}"\nb/c.jpg,,,\n,x,,\na.jpg,b ad,,\n'
        "gone.jpg,,,\na.jpg,,,[]\na.jpg,,,{\n",
        encoding="utf-8-sig",
    )
    entries = list(open_source(manifest, None, MAX_BYTES).entries(Event()))
    assert [entry.id for entry in entries[:2]] == ["shoe-1", "b:c.jpg"]
    assert entries[0].metadata == {"path": "a.jpg", "price": "9", "size": 4}
    assert entries[1].metadata == {"path": "b/c.jpg"}
    assert entries[1].read() == b"b/c.jpg"
    for entry, reason in zip(
        entries[2:],
        ["no path", "does not match", "no such", "not a JSON object", "Expecting"],
        strict=True,
    ):
        with pytest.raises(SourceError, match=reason):
            entry.read()


def test_a_json_lines_manifest(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    manifest = tmp_path / "m.jsonl"
    lines = [json.dumps({"path": "a.jpg", "metadata": {"x": [1]}, "tag": True}), "", "[1]", "{"]
    manifest.write_text("\n".join(lines))
    first, *wrong = open_source(manifest, None, MAX_BYTES).entries(Event())
    assert first.metadata == {"path": "a.jpg", "x": [1], "tag": True}
    assert first.read() == b"a.jpg"
    assert len(wrong) == 2
    for entry in wrong:
        with pytest.raises(SourceError, match="JSON"):
            entry.read()


def test_a_manifest_reads_nothing_outside_the_folder_it_is_confined_to(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    write(tmp_path, "secret", "in/a.jpg")
    manifest = inside / "m.csv"
    manifest.write_text(f"path\n../secret\n{tmp_path}/secret\na.jpg\n")
    found = names_and_bytes(manifest, within=inside)
    assert [value for value in found.values() if isinstance(value, bytes)] == [b"in/a.jpg"]
    assert names_and_bytes(manifest)["../secret"] == b"secret"
    for path in (tmp_path / "secret", inside / ".." / "secret"):
        with pytest.raises(SourceError, match="not within"):
            open_source(path, inside, MAX_BYTES)


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_a_tar_in_its_order(tmp_path: Path, name: str) -> None:
    path = tar(tmp_path / name, "b/2.jpg", "../1.jpg", ".hidden", "a.jpg", "l" * (MAX_BYTES + 1))
    found = names_and_bytes(path)
    assert list(found)[:3] == ["b/2.jpg", "../1.jpg", "a.jpg"]
    assert found["a.jpg"] == b"a.jpg"
    assert "at most" in str(found["l" * (MAX_BYTES + 1)])


def test_bad_paths_of_a_manifest_fail_alone(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    manifest = tmp_path / "m.jsonl"
    paths = ["a\0b", "\ud800", "circle", "x" * 5000, "../\udc80", "a.jpg"]
    lines = [*(json.dumps({"path": path}) for path in paths), '{"wrong": "a"}', '"text"']
    manifest.write_text("\n".join(lines))
    for within in (None, tmp_path):
        found = names_and_bytes(manifest, within)
        assert [value for value in found.values() if isinstance(value, bytes)] == [b"a.jpg"]
        assert len(found) == len(lines)


def test_damage_in_the_middle_of_a_tar_is_not_its_end(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", *(f"{n}.jpg" for n in range(5)))
    data = bytearray(path.read_bytes())
    data[2 * 1024] ^= 1  # in the header of the third file
    path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        open_source(path, None, MAX_BYTES).count(Event())


def test_a_damaged_source_is_an_error_that_names_it(tmp_path: Path) -> None:
    whole = tar(tmp_path / "x.tar.gz", *(f"{n}.jpg" for n in range(200))).read_bytes()
    cut, noise = tmp_path / "cut.tar.gz", tmp_path / "noise.tar"
    cut.write_bytes(whole[: len(whole) // 2])
    noise.write_bytes(b"no archive")
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"path\n\xe9.jpg\n")
    headless = tmp_path / "headless.csv"
    headless.write_text("file\na.jpg\n")
    zipped = tmp_path / "not-json.jsonl"
    zipped.write_bytes(gzip.compress(b"{}"))
    for path in (cut, noise, latin, headless, zipped):
        with pytest.raises(SourceError, match=path.name):
            open_source(path, None, MAX_BYTES).count(Event())
    for name in ("gone", "x.zip"):
        (tmp_path / "x.zip").write_bytes(b"")
        with pytest.raises(SourceError):
            open_source(tmp_path / name, None, MAX_BYTES)


def test_links_are_followed_without_cycles(tmp_path: Path) -> None:
    write(tmp_path, "in/a", "in/b/c", "in/z/y", "out/d", "out/e/f")
    for name, to in {
        "in/l": "out/d",
        "in/m": "out/e",
        "in/n": "out/e",
        "in/b/up": "in",
        "in/k": "in/z",
        "out/e/back": "out/e",
    }.items():
        (tmp_path / name).symlink_to(tmp_path / to)
    inside = {"a": b"in/a", "b/c": b"in/b/c", "z/y": b"in/z/y", "k/y": b"in/z/y"}
    found = {**inside, "l": b"out/d", "m/f": b"out/e/f"}
    assert names_and_bytes(tmp_path / "in") == found
    for within in (tmp_path / "in", tmp_path / "in" / ".." / "in"):
        reason = "it leads out of the import folder"
        kept = {**inside, "l": reason, "m": reason, "n": reason}
        assert names_and_bytes(tmp_path / "in", within) == kept


def test_manifests_and_archives_in_capitals(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    (tmp_path / "M.CSV").write_text("path\na.jpg\n")
    (tmp_path / "M.JSONL").write_text('{"path": "a.jpg"}\n')
    tar(tmp_path / "A.TAR", "a.jpg")
    for name in ("M.CSV", "M.JSONL", "A.TAR"):
        assert names_and_bytes(tmp_path / name) == {"a.jpg": b"a.jpg"}


def test_manifests_that_cannot_be_read_say_what_to_do(tmp_path: Path) -> None:
    wrong = {
        "utf16.csv": ("path\na.jpg\n".encode("utf-16"), "save it as UTF-8"),
        "empty.csv": (b"", "the columns of an empty file; its first line must name 'path'"),
        "other.csv": (b"file,label\n", "the columns file, label; its first line must name 'path'"),
    }
    for name, (data, why) in wrong.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match=why):
            open_source(tmp_path / name, None, MAX_BYTES).count(Event())
    (tmp_path / "text.jsonl").write_text('"a.jpg"\n')
    assert [*names_and_bytes(tmp_path / "text.jsonl").values()] == ["not a JSON object"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, locked_folders: None) -> None:
    write(tmp_path, "a", "locked/b")
    with pytest.raises(SourceError, match="locked: Permission denied"):
        open_source(tmp_path, None, MAX_BYTES).count(Event())


def test_a_link_that_is_replaced_after_the_walk_leads_nowhere(tmp_path: Path) -> None:
    """Both the file itself and a folder above it are replaced."""
    inside = tmp_path / "in"
    write(tmp_path, "secret.jpg", "outside/b.jpg", "in/a.jpg", "in/folder/b.jpg", "in/c.jpg")
    entries = list(open_source(inside, inside, MAX_BYTES).entries(Event()))
    (inside / "a.jpg").unlink()
    (inside / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    (inside / "folder").rename(tmp_path / "moved")
    (inside / "folder").symlink_to(tmp_path / "outside")
    found = {}
    for entry in entries:
        try:
            found[entry.name] = entry.read()
        except SourceError as error:
            found[entry.name] = str(error)
    away = "it leads out of the import folder"
    assert found == {"a.jpg": away, "folder/b.jpg": away, "c.jpg": b"in/c.jpg"}


def test_an_archive_that_is_replaced_by_a_link_leads_nowhere(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    outside = tar(tmp_path / "x.tar", "a.jpg")
    source = open_source(tar(inside / "x.tar", "b.jpg"), inside, MAX_BYTES)
    assert [entry.name for entry in source.entries(Event())] == ["b.jpg"]
    (inside / "x.tar").unlink()
    (inside / "x.tar").symlink_to(outside)
    with pytest.raises(SourceError, match="leads out"):
        source.count(Event())


def bomb(kind: bytes, content: bytes) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        header = tarfile.TarInfo("header")
        header.type, header.size = kind, len(content)
        archive.addfile(header, io.BytesIO(content))

    return add


def global_headers(files: bool) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        for number in range(3000):
            record = b"k%d=%b\n" % (number, b"x" * 5000)
            record = b"%d %b" % (len(record) + 5, record)
            bomb(tarfile.XGLTYPE, record)(archive)
            if files:
                archive.addfile(tarfile.TarInfo(f"{number}.jpg"))

    return add


@pytest.mark.parametrize(
    "add",
    [
        *(
            bomb(kind, b"x" * 200 * 2**20)
            for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE)
        ),
        bomb(tarfile.GNUTYPE_SPARSE, bytes(1000)),
        global_headers(files=False),
        global_headers(files=True),
    ],
)
def test_headers_of_an_archive_take_little_memory(
    tmp_path: Path, add: Callable[[tarfile.TarFile], None]
) -> None:
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        add(archive)
    source = open_source(path, None, MAX_BYTES)
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=r"x\.tar\.gz: "):
            source.count(Event())
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_member_that_expands_a_lot_takes_little_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as archive:
        member = tarfile.TarInfo("large.jpg")
        member.size = 100 * 2**20
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    assert path.stat().st_size < 200_000
    source = open_source(path, None, MAX_BYTES)
    tracemalloc.start()
    try:
        assert source.count(Event()) == 1
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["folder", "m.csv", "x.tar.gz"])
def test_counting_ends_when_it_is_stopped(tmp_path: Path, name: str) -> None:
    names = [f"{number}.jpg" for number in range(5)]
    write(tmp_path / "folder", *names)
    (tmp_path / "m.csv").write_text("\n".join(["path", *names]))
    tar(tmp_path / "x.tar.gz", *names)
    source, stop = open_source(tmp_path / name, None, MAX_BYTES), Event()
    assert source.count(stop) == 5
    stop.set()
    assert source.count(stop) == 0
    assert list(source.entries(stop)) == []


def test_an_archive_is_left_when_the_import_is_stopped(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar.gz", "a.jpg", "b.jpg", *("c" * 900 for _ in range(100)))
    stop, source = Event(), open_source(path, None, MAX_BYTES)
    names = []
    for entry in source.entries(stop):
        names.append(entry.name)
        stop.set()
    assert names[0] == "a.jpg" and len(names) < 50  # at most what one read returned


def test_a_manifest_that_is_replaced_by_a_link_leads_nowhere(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    write(inside, "a.jpg")
    for name, text in (("m.csv", "path\na.jpg\n"), ("m.jsonl", '{"path": "a.jpg"}\n')):
        (tmp_path / name).write_text(text)
        (inside / name).write_text(text)
        source = open_source(inside / name, inside, MAX_BYTES)
        assert source.count(Event()) == 1
        (inside / name).unlink()
        (inside / name).symlink_to(tmp_path / name)
        with pytest.raises(SourceError, match=f"{name}: it leads out"):
            source.count(Event())
