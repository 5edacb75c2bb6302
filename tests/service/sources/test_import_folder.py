"""Tests that errors of the import folder do not tell where it is on the machine."""

from pathlib import Path
from threading import Event

import pytest

from service.errors import SourceError
from service.settings import Settings
from service.sources.import_folder import ImportFolder

MANIFESTS = {"utf16.csv": "path\na.jpg\n".encode("utf-16"), "empty.csv": b"", "x.tar": b"x" * 600}


@pytest.fixture
def folder(tmp_path: Path) -> ImportFolder:
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "loop").symlink_to("loop")
    (inside / "text.txt").write_text("no source")
    for name, data in MANIFESTS.items():
        (inside / name).write_bytes(data)
    return ImportFolder(Settings(import_folder=inside))


@pytest.mark.parametrize("name", ["none", "loop", "text.txt", "../in2", "/etc", "a\0b", "x" * 5000])
def test_a_source_that_cannot_be_opened_is_called_by_its_name(
    folder: ImportFolder, tmp_path: Path, name: str
) -> None:
    for opened in (folder.open, folder.name):
        with pytest.raises(SourceError) as error:
            opened(name)
        assert name in str(error.value) and str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_source_that_cannot_be_read_is_called_by_its_name(
    folder: ImportFolder, tmp_path: Path, name: str
) -> None:
    with pytest.raises(SourceError) as error:
        folder.open(name).count(Event())
    assert name in str(error.value) and str(tmp_path) not in str(error.value)


def test_a_folder_that_cannot_be_read_is_called_by_its_name(
    folder: ImportFolder, tmp_path: Path, locked_folders: None
) -> None:
    (tmp_path / "in" / "locked").mkdir()
    with pytest.raises(SourceError) as error:
        folder.open("").count(Event())
    assert str(error.value) == "locked: Permission denied"
