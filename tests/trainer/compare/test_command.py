"""Compares methods on folders of real photographs, by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from harness.images import EXAMPLES
from trainer.__main__ import main
from trainer.compare import runs
from trainer.compare.material import divided, first_of_each
from trainer.data.listing import Listing
from trainer.methods.deep.learning import Learner

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three kinds of garments, twelve photographs of each."""
    folder = tmp_path / "garments"
    for kind in ("hat", "shoes", "skirt"):
        (folder / kind).mkdir(parents=True)
        for file in sorted((EXAMPLES / kind).iterdir())[:12]:
            (folder / kind / file.name).write_bytes(file.read_bytes())
    return folder


def compare(photos: Path, out: Path, *more: str) -> int:
    small = ["--size", "64", "--bits", "12", "24", "--methods", "itq", "GPQ"]
    return main(["compare", "--data", str(photos), "--out", str(out), *small, *more])


def test_methods_are_compared_once_and_shown(
    photos: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "steps", 60)
    (photos / "hat" / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    assert compare(photos, out, "--labels", "5") == 0
    printed = capsys.readouterr()
    assert "broken.jpg" in printed.err
    assert "garments: 7 queries over 29 images of 3 classes" in printed.out
    assert "efficientnet-lite0 at 64 pixels, 5 labels of each class" in printed.out
    assert "At 24 bits, use " in printed.out
    assert (out / "garments.md").read_text() + "\n" == printed.out
    assert (out / "garments.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (out / "compared.jsonl").read_text().splitlines()]
    assert [line["figures"]["bits"] for line in lines] == [12, 12, 24, 24]

    def no_more(*_: object) -> None:
        raise AssertionError("it is measured already")

    measure = runs.measure
    monkeypatch.setattr(runs, "measure", no_more)
    assert compare(photos, out, "--labels", "5") == 0
    whole = (out / "compared.jsonl").read_text()
    (out / "compared.jsonl").write_text(whole[:-30])
    monkeypatch.setattr(runs, "measure", measure)
    assert compare(photos, out, "--labels", "5") == 0
    assert "skipping an incomplete line" in capsys.readouterr().err


def test_other_options_are_other_results(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "steps", 5)
    for more in ((), ("--labels", "3"), ("--seeds", "2")):
        assert compare(photos, tmp_path / "out", *more) == 0
    assert len((tmp_path / "out" / "compared.jsonl").read_text().splitlines()) == 4 + 4 + 4


def test_train_and_test_are_database_and_queries(photos: Path, tmp_path: Path, capsys) -> None:
    for part, kept in (("train", slice(0, 10)), ("test", slice(10, 12))):
        for kind in sorted(photos.iterdir()):
            (tmp_path / "split" / part / kind.name).mkdir(parents=True)
            for file in sorted(kind.iterdir())[kept]:
                target = tmp_path / "split" / part / kind.name / file.name
                target.write_bytes(file.read_bytes())
    words = ["compare", "--data", str(tmp_path / "split"), "--out", str(tmp_path / "out")]
    assert main([*words, "--size", "64", "--bits", "12", "--methods", "itq"]) == 0
    assert "split: 6 queries over 30 images" in capsys.readouterr().out
    (tmp_path / "split" / "test" / "coat").mkdir()
    (tmp_path / "split" / "test" / "coat" / "a.jpg").write_bytes(target.read_bytes())
    assert main([*words, "--methods", "itq"]) == 1
    assert "test/ has classes that train/ lacks: coat" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "PQ", "PQR"], "--methods: there is no PQR; known are PQ, OPQ"),
        (["--data", "missing"], "missing is not a folder"),
        (["--bits", "48"], "codes of 48 bits are learnt from at least 48 images"),
        (["--size", "8", "--network", "alexnet"], "too small for network alexnet"),
    ],
)
def test_what_cannot_be_compared_is_a_clear_error(
    words: list[str], message: str, photos: Path, tmp_path: Path, capsys
) -> None:
    out = ["--out", str(tmp_path / "out"), "--size", "64", "--bits", "12", "--methods", "ITQ"]
    data = [] if "--data" in words else ["--data", str(photos)]
    assert main(["compare", *data, *out, *words]) == 1
    assert message in capsys.readouterr().err


def listing(*counts: int) -> Listing:
    """Returns a listing of classes with these numbers of files."""
    classes = [f"class {n}" for n, count in enumerate(counts) for _ in range(count)]
    files = tuple(Path(f"{n}.jpg") for n in range(len(classes)))
    return Listing(files, tuple(frozenset([name]) for name in classes))


def test_a_fifth_of_the_images_are_queries() -> None:
    stored, asked = divided(listing(10, 15))
    assert [path.name for path in asked.files] == ["4.jpg", "9.jpg", "14.jpg", "19.jpg", "24.jpg"]
    assert len(stored) == 20 and not set(stored.files) & set(asked.files)


def test_small_classes_have_queries_too_but_keep_an_image_in_the_database() -> None:
    stored, asked = divided(listing(*[50] * 1200))
    assert len(asked) == 1000
    assert len(asked.classes) == 1000 and len(stored.classes) == 1200
    stored, asked = divided(listing(*[1] * 50))
    assert len(asked) == 0 and len(stored) == 50


def test_folders_that_are_no_classes_are_told_apart(photos: Path, tmp_path: Path, capsys) -> None:
    (photos / "unlabeled").mkdir()
    for number, file in enumerate(sorted((EXAMPLES / "pants").iterdir())[:6]):
        (photos / "unlabeled" / f"{number}.jpg").write_bytes(file.read_bytes())
    words = ["compare", "--data", str(photos), "--out", str(tmp_path / "out"), "--size", "64"]
    words += ["--bits", "12", "--methods", "ITQ", "itq"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "7 queries over 29 images of 3 classes" in printed
    assert "±" not in printed  # the method that was named twice is measured once
    (photos / "unlabeled").rename(photos / "val")
    assert main(words) == 1
    assert "val/, which are no classes" in capsys.readouterr().err


def test_changed_images_are_measured_again(photos: Path, tmp_path: Path, capsys) -> None:
    words = ["compare", "--data", str(photos), "--out", str(tmp_path / "out"), "--size", "64"]
    words += ["--bits", "12", "--methods", "ITQ"]
    assert main(words) == 0
    next(iter((photos / "hat").iterdir())).unlink()
    assert main(words) == 0
    assert "7 queries over 28 images" in capsys.readouterr().out
    assert len((tmp_path / "out" / "compared.jsonl").read_text().splitlines()) == 2


def test_the_first_of_each_class_keep_their_labels() -> None:
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], dtype=np.uint8)
    assert first_of_each(labels, 0).all()
    assert first_of_each(labels, 1).tolist() == [True, False, True, False]
    assert first_of_each(labels, 2).tolist() == [True, True, True, True]
