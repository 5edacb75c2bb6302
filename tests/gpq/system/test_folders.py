import os
from pathlib import Path

import pytest

from gpq.system.folders import files_below


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root: Path, **options: object) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files_below(root, **options)]


def test_files_come_before_folders_in_name_order_without_hidden_ones(tmp_path: Path) -> None:
    write(tmp_path, "b/2", "b/1", "c", "a/d/3", "a/z", ".hidden/x", "b/.hidden")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == ["c", "gone", "pipe", "a/z", "a/d/3", "b/1", "b/2"]


def linked(folder: Path) -> Path:
    """A folder ``root`` with links up, to a folder inside it, and two to one outside it."""
    root = folder / "root"
    write(folder, "root/b/1", "root/m/2", "elsewhere/3")
    (root / "k").symlink_to(root / "m")
    (root / "up").symlink_to(root)
    (root / "y").symlink_to(folder / "elsewhere")
    (root / "b" / "x").symlink_to(folder / "elsewhere")
    (folder / "elsewhere" / "back").symlink_to(folder / "elsewhere")
    return root


def test_a_link_to_a_folder_is_followed_unless_that_folder_was_entered(tmp_path: Path) -> None:
    assert names(linked(tmp_path)) == ["b/1", "k/2", "m/2", "y/3"]


def test_no_folder_is_entered_twice_if_asked(tmp_path: Path) -> None:
    assert names(linked(tmp_path), once=True) == ["b/1", "k/2", "y/3"]


def test_a_closed_folder_is_yielded_itself_before_the_files_beside_it(tmp_path: Path) -> None:
    root = linked(tmp_path)
    write(root, "a")
    found = names(root, closed=lambda path: path.name in ("m", "y"))
    assert found == ["m", "y", "a", "b/1", "b/x/3", "k/2"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, locked_folders: None) -> None:
    write(tmp_path, "a/1", "locked/2")
    with pytest.raises(PermissionError, match="locked"):
        names(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone"):
        names(tmp_path / "gone")
