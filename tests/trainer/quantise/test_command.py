"""Learns codes for a published network, by the command line."""

import io
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpq.engine import engines
from gpq.engine.engines import Options
from harness.images import tree
from trainer.__main__ import main
from trainer.artifacts.cut import cut
from trainer.errors import TrainerError
from trainer.quantise import command
from trainer.quantise.command import Folder, groups_of


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LEAST_IMAGES", 40)
    monkeypatch.setattr(command, "ITERATIONS", 2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("photos"), *(f"a/{n}.png" for n in range(50)), "broken.png")


def quantise(data: str, out: Path, *more: str) -> int:
    small = ["--size", "64", "--bits", "48", "--cache-gb", "0"]
    return main(["quantise", "--data", data, "--out", str(out), *small, *more])


def test_codes_are_learnt_from_images_without_labels(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    sources = ("--source", "photos: CC0", "--source", "weights: Apache-2.0")
    assert quantise(str(photos), out, "--data", f"{photos}@48", *sources) == 0
    assert "broken.png" in capsys.readouterr().err
    model = engines.load(out)
    assert model.codebook.Z.shape == (12, 16, 4) and model.codebook.classes is None
    assert model.rules.size == 64
    assert model.about["data"] == {
        "name": "photos; weights",
        "licence": "photos: CC0; weights: Apache-2.0",
        "labelled": 0,
        "unlabelled": 100,
    }
    assert model.about["training"]["command"].count("--data DATA@48") == 1
    assert str(photos) not in str(model.about)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)
    other = engines.load(out, Options("torch"))
    assert np.allclose(model.features(pixels), other.features(pixels), atol=1e-3)
    others = tree(tmp_path / "others", "a.png", "b.png")
    assert quantise(str(photos), tmp_path / "same", "--examples", str(others)) == 0
    shown = engines.load(tmp_path / "same").about["golden"]
    decoded = {Image.open(io.BytesIO(b64decode(v["png"]))).tobytes() for v in shown}
    wanted = {
        model.rules.prepare(Image.open(p)).transpose(1, 2, 0).tobytes() for p in others.iterdir()
    }
    assert decoded <= wanted
    kinds = tree(tmp_path / "kinds", *(f"{kind}/{n}.png" for kind in "ab" for n in range(20)))
    assert quantise(str(kinds), tmp_path / "told apart", "--kinds") == 0
    about = engines.load(tmp_path / "told apart").about["data"]
    assert (about["labelled"], about["unlabelled"]) == (40, 0)
    shorter = tmp_path / "shorter"
    cut(out, 24, shorter)
    assert np.array_equal(engines.load(shorter).encode(pixels), model.encode(pixels)[:, :3])


def test_what_cannot_be_learnt_from_is_said_first(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantise(str(tmp_path / "nowhere"), tmp_path / "out") == 1
    assert "there are no files below" in capsys.readouterr().err
    assert quantise(str(photos), tmp_path / "out", "--most", "20") == 1
    assert "at least 40 are needed" in capsys.readouterr().err
    assert quantise(str(photos), tmp_path / "out", "--examples", str(tmp_path / "none")) == 1
    assert "there are no files below" in capsys.readouterr().err
    assert quantise(f"{photos}@48", tmp_path / "out") == 1
    assert "no --data has images of the network's own size" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        quantise(str(photos), tmp_path / "out", "--bits", "30")
    with pytest.raises(SystemExit):
        quantise(str(photos), tmp_path / "out", "--source", "no licence")
    assert "'no licence' is not a name, a colon and a licence" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_groups_end_at_the_nested_lengths_where_these_are_at_most_half_of_what_is_left() -> None:
    assert groups_of(64) == [6, 6, 12, 40]
    assert groups_of(24) == [6, 6, 12]
    assert groups_of(12) == [6, 6]
    assert groups_of(8) == [8]
    assert groups_of(32) == [6, 6, 20]


def test_a_folder_may_name_its_size() -> None:
    assert Folder.parse("a@b/c@128", 224) == Folder(Path("a@b/c"), 128)
    assert Folder.parse("a@b", 224) == Folder(Path("a@b"), 224)
    with pytest.raises(TrainerError, match="32 to 224 pixels"):
        Folder.parse("a@500", 224)
