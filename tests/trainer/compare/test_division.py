from collections import Counter
from pathlib import Path

import pytest

from trainer.compare.division import divide, in_turns, one_in_five
from trainer.data.listing import Listing
from trainer.errors import TrainerError


def listing(*counts: int) -> Listing:
    """Returns a listing of classes with these numbers of files."""
    classes = [f"class {n}" for n, count in enumerate(counts) for _ in range(count)]
    files = tuple(Path(f"{n}.jpg") for n in range(len(classes)))
    return Listing(files, tuple(frozenset([name]) for name in classes))


def of_each(part: Listing) -> list[int]:
    counts = Counter(name for labels in part.labels for name in labels)
    return [counts[name] for name in sorted(counts)]


def test_a_fifth_of_the_images_are_queries_and_the_others_take_turns() -> None:
    whole = listing(10, 15)
    learn, asked, stored = in_turns(whole)
    assert [path.name for path in asked.files] == ["4.jpg", "9.jpg", "14.jpg", "19.jpg", "24.jpg"]
    assert of_each(learn) == [4, 6] and of_each(stored) == [4, 6]
    files = [*learn.files, *asked.files, *stored.files]
    assert sorted(files) == sorted(whole.files)


def test_small_classes_are_learnt_from_and_searched_before_they_are_asked_for() -> None:
    learn, asked, stored = in_turns(listing(*[5] * 500))
    assert set(of_each(learn)) == {2} and set(of_each(stored)) == {2} and len(asked) == 500
    learn, asked, stored = in_turns(listing(*[2] * 50))
    assert (len(learn), len(asked), len(stored)) == (50, 0, 50)
    learn, asked, stored = in_turns(listing(*[1] * 50))
    assert (len(learn), len(asked), len(stored)) == (50, 0, 0)
    assert len(in_turns(listing(*[50] * 1200))[1]) == 1000
    # A query that is due among the first images of a class is asked for later.
    assert len(in_turns(listing(8, *[5] * 523, 2))[1]) > 500
    assert len(in_turns(listing(*[4] * 500))[1]) > 390


def test_images_of_several_classes_are_divided_evenly() -> None:
    kinds = [frozenset(f"k{m}" for m in range(5) if (n >> m) & 1) for n in range(1, 32)]
    files = tuple(Path(f"{n}.jpg") for n in range(31 * 8))
    learn, asked, stored = in_turns(Listing(files, tuple(kinds * 8)))
    assert len(asked) == pytest.approx(31 * 8 / 5, abs=5)
    for one, other in zip(of_each(learn), of_each(stored), strict=True):
        assert 0.8 < one / other < 1.25


def test_unseen_images_are_divided_into_queries_and_database() -> None:
    asked, stored = one_in_five(listing(12, 3))
    assert [path.name for path in asked.files] == ["4.jpg", "9.jpg", "14.jpg"]
    assert len(stored) == 12
    assert [len(part) for part in one_in_five(listing(3))] == [1, 2]
    assert [len(part) for part in one_in_five(listing())] == [0, 0]


def test_a_table_is_divided_by_its_splits(tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    rows = ["1.jpg,a|b,train", "2.jpg,c,train", "3.jpg,,train", "4.jpg,a,query", "5.jpg,b,database"]
    table.write_text("\n".join(["path,labels,split", *rows]))
    found = divide(table)
    assert found.classes == ("a", "b", "c")
    assert [len(part) for part in (found.learn, found.unlabelled)] == [2, 1]
    assert found.queries.files == (tmp_path / "4.jpg",)
    assert found.database.labels == (frozenset("b"),)
    table.write_text("\n".join(["path,labels,split", *rows, "6.jpg,d,database"]))
    with pytest.raises(TrainerError, match=r"images\.csv: d: there are images of these classes"):
        divide(table)


@pytest.mark.parametrize(
    ("row", "message"),
    [("4.jpg,a,train", r"4\.jpg has several splits"), ("5.jpg,b,train", "or none of both")],
)
def test_a_table_whose_splits_are_wrong_is_a_clear_error(
    row: str, message: str, tmp_path: Path
) -> None:
    table = tmp_path / "images.csv"
    rows = ["1.jpg,a,train", "2.jpg,b,train", "4.jpg,a,query", row]
    rows += [] if "5" in row else ["6.jpg,a,database"]
    table.write_text("\n".join(["path,labels,split", *rows]))
    with pytest.raises(TrainerError, match=message):
        divide(table)


def test_a_misspelt_folder_is_a_clear_error(tmp_path: Path) -> None:
    for name in ("labeled/a", "labeled/b", "unlabelled"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(TrainerError, match="rename it to unlabeled"):
        divide(tmp_path)


def test_a_table_without_splits_is_divided_in_turns(tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    table.write_text("path,labels\n" + "\n".join(f"{n}.jpg,{'ab'[n % 2]}" for n in range(20)))
    found = divide(table)
    assert [len(part) for part in (found.learn, found.queries, found.database)] == [8, 4, 8]
