from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from harness.images import tree
from trainer.data.listing import class_folders, images_below, manifest
from trainer.errors import TrainerError

TABLE = {
    "path": ["a.jpg", "deep/b.jpg", "c.jpg", "d.jpg"],
    "labels": ["cat", "dog | cat", None, "dog"],
    "split": ["train", None, "train", "query"],
}


def csv_of(table: dict[str, list[str | None]]) -> str:
    rows = zip(*table.values(), strict=True)
    return "\n".join([",".join(table), *(",".join(v or "" for v in row) for row in rows)])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_manifest_of_either_kind(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"images.{kind}"
    if kind == "csv":
        path.write_text("\ufeff" + csv_of(TABLE))  # as spreadsheets write it
    else:
        parquet.write_table(pyarrow.table(TABLE), path)
    splits = manifest(path)
    train = splits["train"]
    assert train.files == (tmp_path / "a.jpg", tmp_path / "deep" / "b.jpg", tmp_path / "c.jpg")
    assert train.labels == ({"cat"}, {"dog", "cat"}, set())
    assert train.classes == ("cat", "dog")
    assert train.labelled().files == train.files[:2]
    assert train.unlabelled().files == train.files[2:]
    assert splits["query"].labels == ({"dog"},)
    assert len(splits["database"]) == 0


def test_a_csv_is_read_as_spreadsheets_and_programs_write_it(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    caption = 'a "quoted"\nline\u2028 and\x0b more'.replace('"', '""')
    path.write_bytes(
        f'path,caption,labels\r\na.jpg,"{caption}",cat\r\n/abs/b.jpg,,dog\r\n'.encode()
    )
    train = manifest(path)["train"]
    assert train.labels == ({"cat"}, {"dog"})
    assert train.files == (tmp_path / "a.jpg", Path("/abs/b.jpg"))
    path.write_text('path,labels\na.jpg,"cat\nb.jpg,dog\n')
    with pytest.raises(TrainerError, match="unexpected end of data"):
        manifest(path)


def test_parquet_may_hold_lists_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    labels = [["cat", "dog"], [], None]
    parquet.write_table(pyarrow.table({"path": ["a", "b", "c"], "labels": labels}), path)
    assert manifest(path)["train"].labels == ({"cat", "dog"}, set(), set())
    numbers = pyarrow.table({"path": ["a", "b"], "labels": [1.0, float("nan")]})
    parquet.write_table(numbers, path)
    assert manifest(path)["train"].labels == ({"1.0"}, set())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,labels\na.jpg,cat", "columns file, labels; .* 'path' and 'labels'"),
        ("", "columns of an empty file; .* 'path' and 'labels'"),
        ("path,labels\na.jpg,cat\n,dog", "row 2 has no path"),
        ("path;labels\na.jpg;cat", "the columns path;labels; .* separated by commas"),
        ("path,labels,split\na.jpg,cat,test", "row 1 has split 'test': use train, database"),
        ("path,labels\na,b.jpg,cat", "row 1 has more cells than the header"),
        (
            "path,labels\na.jpg,cat\nb.jpg,cat\na.jpg,red",
            "row 3 has 'a.jpg', as row 1 has: .* one row",
        ),
    ],
)
def test_a_wrong_manifest_names_its_row(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text(text)
    with pytest.raises(TrainerError, match=message):
        manifest(path)


def test_an_image_may_be_in_several_splits(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text("path,labels,split\na.jpg,cat,train\na.jpg,cat,database\n")
    splits = manifest(path)
    assert splits["train"] == splits["database"]


def test_a_manifest_in_another_encoding_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_bytes("path,labels\na.jpg,Grün".encode("latin-1"))
    with pytest.raises(TrainerError, match="is not UTF-8: save it as"):
        manifest(path)


def test_an_unreadable_manifest_is_a_clear_error(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(TrainerError, match=name):
            manifest(tmp_path / name)
    for name in ("broken.csv", "broken.parquet"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(TrainerError, match=name):
            manifest(tmp_path / name)


def test_a_folder_that_cannot_be_read_is_an_error_and_a_dangling_link_is_listed(
    tmp_path: Path, locked_folders: None
) -> None:
    tree(tmp_path, "a/1.png")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert tmp_path / "a" / "gone.png" in class_folders(tmp_path).files
    tree(tmp_path, "a/locked/2.png")
    with pytest.raises(TrainerError, match=r"locked cannot be read \(Permission denied\)"):
        images_below(tmp_path)


def test_folders_are_walked_in_name_order_without_hidden_files(tmp_path: Path) -> None:
    tree(tmp_path, "b/2.png", "b/x/1.png", "a/3.png", "a/.hidden", "loose.png")
    listing = class_folders(tmp_path)
    names = [file.relative_to(tmp_path).as_posix() for file in listing.files]
    assert names == ["a/3.png", "b/2.png", "b/x/1.png"]
    assert listing.labels == ({"a"}, {"b"}, {"b"})
    assert len(images_below(tmp_path)) == 4
    tree(tmp_path, ".git/1.png", "a/.ipynb_checkpoints/3.png")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    linked = class_folders(tmp_path)
    assert linked.classes == ("a", "b", "c")
    assert len(linked) == 5
    assert len(images_below(tmp_path / "nowhere")) == 0
    with pytest.raises(TrainerError, match="not a folder"):
        class_folders(tmp_path / "nowhere")


def test_a_folder_that_several_links_lead_to_is_listed_once(tmp_path: Path) -> None:
    tree(tmp_path, "root/a/z/1.png", "elsewhere/2.png")
    for link, target in {"a/k": "root/a/z", "a/m": "elsewhere", "a/n": "elsewhere"}.items():
        (tmp_path / "root" / link).symlink_to(tmp_path / target)
    files = class_folders(tmp_path / "root").files
    names = [file.relative_to(tmp_path / "root").as_posix() for file in files]
    assert names == ["a/k/1.png", "a/m/2.png"]
