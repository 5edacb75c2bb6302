from pathlib import Path

import pytest

from gpq.system.tables import TableError, csv_rows, open_text, require_columns


def rows(path: Path, text: str | bytes, *needed: str, strict: bool = True) -> list[object]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(csv_rows(path, needed, strict=strict))


def test_rows_are_dicts_by_column_with_gaps_and_surplus_cells(tmp_path: Path) -> None:
    assert rows(tmp_path / "t.csv", '\ufeffa,b\r\n1,"x\n""y"""\r\n2\r\n3,4,5,6\r\n', "b", "a") == [
        {"a": "1", "b": 'x\n"y"'},
        {"a": "2", "b": None},
        {"a": "3", "b": "4", None: ["5", "6"]},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv has the columns of an empty file; .* 'path' and 'id'"),
        ("path;id\n", "t.csv has the columns path;id; .* separated by commas"),
        ("path,ID\n", "t.csv has the columns path, ID; "),
        ("path,id\n".encode("utf-16"), "t.csv is not UTF-8: save it as UTF-8"),
        (b"path,id\n1,\xe9\n", "t.csv is not UTF-8"),
        ('path,id\n1,"2\n', "t.csv: unexpected end of data"),
        ('path,id\n1,"2"3\n', "t.csv: ',' expected after '\"'"),
    ],
)
def test_a_wrong_table_is_named(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=message):
        rows(tmp_path / "t.csv", text, "path", "id")


def test_odd_quotes_are_guessed_unless_strict(tmp_path: Path) -> None:
    found = rows(tmp_path / "t.csv", 'a,b\n1,"2"3\n4,"5\n', strict=False)
    assert found == [{"a": "1", "b": "23"}, {"a": "4", "b": "5\n"}]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(TableError, match=r"gone\.txt: .*No such file"),
        open_text(tmp_path / "gone.txt"),
    ):
        pass


def test_errors_of_the_reader_pass_through(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n")
    with pytest.raises(KeyError), open_text(path):
        raise KeyError
    require_columns(path, ["a", "b"], ["b"])
