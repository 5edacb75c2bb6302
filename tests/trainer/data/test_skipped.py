from pathlib import Path

import pytest

from trainer.data.skipped import NAME, SHOWN, print_skipped, write_skipped
from trainer.errors import TrainerError


def test_the_first_are_printed_and_all_are_written(tmp_path: Path, capsys) -> None:
    lines = [f"{n}.jpg: broken" for n in range(SHOWN + 2)]
    print_skipped(lines)
    write_skipped(lines, tmp_path)
    printed = capsys.readouterr().err
    assert "skipped 12 files" in printed and "and 2 more" in printed
    assert "11.jpg" not in printed and str(tmp_path / NAME) in printed
    assert (tmp_path / NAME).read_text().splitlines() == lines


def test_without_skipped_files_nothing_is_printed_or_written(tmp_path: Path, capsys) -> None:
    print_skipped([])
    write_skipped([], tmp_path)
    assert capsys.readouterr().err == ""
    assert not (tmp_path / NAME).exists()


def test_a_list_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to("/dev/full")
    with pytest.raises(TrainerError, match=r"skipped\.txt cannot be written: .*No space left"):
        write_skipped(["a"], tmp_path)
