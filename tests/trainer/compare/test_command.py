"""Compares methods on folders of real photographs, by the command line."""

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from gpq.engine import engines
from harness.images import EXAMPLES
from trainer.__main__ import main
from trainer.compare import command, runs
from trainer.compare.backbone import Backbone
from trainer.compare.division import divide
from trainer.compare.material import first_of_each
from trainer.compare.measure import TooSlowError
from trainer.evaluation.ranking import ranked
from trainer.methods.deep.learning import Learner

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 64  # pixels


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three kinds of garments, thirty photographs of each."""
    folder = tmp_path / "garments"
    for kind in ("hat", "shoes", "skirt"):
        (folder / kind).mkdir(parents=True)
        for file in sorted((EXAMPLES / kind).iterdir())[:30]:
            (folder / kind / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def small_backbone() -> Iterator[Backbone]:
    """The network for images of 64 pixels, loaded once: to export it takes most of a test."""
    with (
        TemporaryDirectory() as place,
        Backbone("efficientnet-lite0", SIZE, "cpu", Path(place), 10**9) as backbone,
    ):
        yield backbone


@pytest.fixture(autouse=True)
def loaded_once(small_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = command.backbone_of

    def backbone_of(options: argparse.Namespace) -> AbstractContextManager[Backbone]:
        is_small = (options.network, options.size) == (small_backbone.name, SIZE)
        return nullcontext(small_backbone) if is_small else whole(options)

    monkeypatch.setattr(command, "backbone_of", backbone_of)


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
    assert "garments: 17 queries over 36 images of 3 classes" in printed.out
    assert "learnt from 15 labelled and 22 unlabelled others" in printed.out
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


def test_results_of_one_name_are_not_mixed(
    photos: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again" / "garments"
    shutil.copytree(photos, again)
    assert compare(photos, tmp_path / "out", "--data", str(again)) == 1
    assert "have the name garments" in capsys.readouterr().err
    words = ["--methods", "ITQ", "--bits", "12"]
    assert compare(photos, tmp_path / "out", *words) == 0
    monkeypatch.setattr(runs, "code_digest", lambda: "other code")
    assert compare(photos, tmp_path / "out", *words) == 0
    lines = (tmp_path / "out" / "compared.jsonl").read_text().splitlines()
    assert len(lines) == 2 and len({json.loads(line)["code"] for line in lines}) == 2


def test_other_options_are_other_results(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "steps", 5)
    for more in ((), ("--labels", "3"), ("--seeds", "2")):
        assert compare(photos, tmp_path / "out", *more) == 0
    assert len((tmp_path / "out" / "compared.jsonl").read_text().splitlines()) == 4 + 4 + 4


def test_train_is_learnt_from_and_test_is_searched(photos: Path, tmp_path: Path, capsys) -> None:
    for part, kept in (("train", slice(0, 7)), ("test", slice(7, 12))):
        for kind in sorted(photos.iterdir()):
            (tmp_path / "split" / part / kind.name).mkdir(parents=True)
            for file in sorted(kind.iterdir())[kept]:
                target = tmp_path / "split" / part / kind.name / file.name
                target.write_bytes(file.read_bytes())
    words = ["compare", "--data", str(tmp_path / "split"), "--out", str(tmp_path / "out")]
    assert main([*words, "--size", "64", "--bits", "12", "--methods", "itq"]) == 0
    printed = capsys.readouterr().out
    assert "split: 3 queries over 12 images" in printed and "learnt from 21 labelled" in printed
    (tmp_path / "split" / "test" / "coat").mkdir()
    (tmp_path / "split" / "test" / "coat" / "a.jpg").write_bytes(target.read_bytes())
    assert main([*words, "--methods", "itq", "--size", "64"]) == 1
    assert "split: coat: there are images of these classes to search, but none to learn from" in (
        capsys.readouterr().err
    )


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


def test_a_method_that_is_too_slow_is_left_out(
    photos: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, limits = runs.measure, []

    def measure(name: str, *rest: Any) -> Any:
        limits.append(rest[-1])
        if name == "GPQ":
            raise TooSlowError
        return whole(name, *rest)

    monkeypatch.setattr(runs, "measure", measure)
    assert compare(photos, tmp_path / "out", "--minutes", "1") == 0
    assert limits == [60, 60, 60]  # the second length is not tried
    printed = capsys.readouterr().out
    assert "GPQ is left out from 12 bits on: it learns for more than 1 minutes" in printed
    assert "At 24 bits, use ITQ" in printed
    lines = (tmp_path / "out" / "compared.jsonl").read_text().splitlines()
    assert [json.loads(line)["figures"]["method"] for line in lines] == ["ITQ", "ITQ"]


def test_a_table_of_images_with_several_classes(photos: Path, tmp_path: Path, capsys) -> None:
    """Images are of a kind and of the first or the second half of its photographs."""
    rows = ["path,labels"]
    for kind in sorted(photos.iterdir()):
        files = sorted(kind.iterdir())
        rows += [f"{kind.name}/{f.name},{kind.name}|half {n % 2}" for n, f in enumerate(files)]
    table = photos / "pictures.csv"
    table.write_text("\n".join(rows))
    assert compare(table, tmp_path / "out", "--methods", "CNNH", "SDH", "--bits", "12") == 0
    assert "pictures: 18 queries over 36 images of 5 classes" in capsys.readouterr().out


SERVED = ("OPQ", "SH", "SDH", "NINH", "SUBIC", "GPQ")


def test_a_service_finds_with_an_artifact_what_was_measured(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(Learner, "steps", 60)
    out = tmp_path / "out"
    words = ["--artifacts", "--bits", "24", "--methods", "LOPQ", *SERVED]
    assert compare(photos, out, *words) == 0
    folders = sorted(path.name for path in (out / "garments").iterdir())
    assert folders == sorted(f"{name}-24-0" for name in SERVED)
    configs = {name: out / "garments" / name / "config.json" for name in folders}
    before = {name: path.stat().st_mtime_ns for name, path in configs.items()}
    division = divide(photos)
    kinds = {file: next(iter(labels)) for part in (division.queries, division.database)
             for file, labels in zip(part.files, part.labels, strict=True)}  # fmt: skip
    for name in folders:
        model = engines.load(out / "garments" / name)
        queries, database = (
            model.features(np.stack([model.read(file.read_bytes()) for file in part.files]))
            for part in (division.queries, division.database)
        )
        codes, tables = model.codebook.encode(database), model.codebook.lut(queries)
        found = []
        for file, table in zip(division.queries.files, tables, strict=True):
            scores = np.zeros(len(codes), dtype=np.float32)
            for m in range(model.codebook.M):
                scores += table[m, codes[:, m]]
            right = np.array([kinds[other] == kinds[file] for other in division.database.files])
            found.append(ranked(0, scores, right).metrics.tie_aware_average_precision)
        measured = model.about["measured"]
        assert measured["model"] == model.id
        assert np.mean(found) == pytest.approx(measured["mAP_tie_aware"], abs=0.01), name
    assert compare(photos, out, *words) == 0
    shutil.rmtree(out / "garments" / "SUBIC-24-0")
    assert compare(photos, out, *words) == 0
    changed = [name for name, path in configs.items() if path.stat().st_mtime_ns != before[name]]
    assert changed == ["SUBIC-24-0"]


def test_folders_that_are_no_classes_are_told_apart(photos: Path, tmp_path: Path, capsys) -> None:
    (photos / "unlabeled").mkdir()
    for number, file in enumerate(sorted((EXAMPLES / "pants").iterdir())[:6]):
        (photos / "unlabeled" / f"{number}.jpg").write_bytes(file.read_bytes())
    words = ["compare", "--data", str(photos), "--out", str(tmp_path / "out"), "--size", "64"]
    words += ["--bits", "12", "--methods", "ITQ", "itq"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "18 queries over 36 images of 3 classes" in printed
    assert "learnt from 36 labelled and 6 unlabelled others" in printed
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
    assert "17 queries over 36 images" in capsys.readouterr().out
    assert len((tmp_path / "out" / "compared.jsonl").read_text().splitlines()) == 2


def test_the_first_of_each_class_keep_their_labels() -> None:
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], dtype=np.uint8)
    assert first_of_each(labels, 0).all()
    assert first_of_each(labels, 1).tolist() == [True, False, True, False]
    assert first_of_each(labels, 2).tolist() == [True, True, True, True]
