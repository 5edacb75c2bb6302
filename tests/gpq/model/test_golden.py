import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpq.engine import engines
from gpq.errors import ArtifactError
from gpq.model import golden
from gpq.model.codebook import Codebook
from gpq.model.model import Model
from gpq.pixels import decode

D = 144


class Known:
    """A network whose features are given for each image, by its first pixel."""

    engine, precision, device = "none", "float32", "cpu"
    batches = (32, 4, 1)

    def __init__(self, features: NDArray[np.float32]) -> None:
        self.of_pixel = features

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.of_pixel[pixels[:, 0, 0, 0]]


class Broken(Known):
    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("no room")


@pytest.fixture(scope="module")
def model(random_model: Path) -> Model:
    return engines.load(random_model)


def numbered(count: int) -> NDArray[np.uint8]:
    """Returns images whose first pixel is their number."""
    pixels = np.zeros((count, 3, 32, 32), np.uint8)
    pixels[:, 0, 0, 0] = range(count)
    return pixels


def test_the_images_of_the_largest_margins_are_chosen(model: Model) -> None:
    features = np.random.default_rng(0).standard_normal((100, D), dtype=np.float32)
    chosen = golden.choose(replace(model, network=Known(features)), numbered(100))
    margins, codes = model.codebook.margin(features), model.codebook.encode(features)
    best = [int(row) for row in np.argsort(-margins)[: golden.GOLDEN_COUNT]]
    assert [vector["code"] for vector in chosen] == codes[best].tolist()
    pngs = [base64.b64decode(vector["png"]) for vector in chosen]
    assert all(png.startswith(b"\x89PNG") for png in pngs)
    assert [np.asarray(decode.load(png))[0, 0, 0] for png in pngs] == best


def test_images_with_the_same_code_in_bfloat16_are_preferred(model: Model) -> None:
    features = np.random.default_rng(0).standard_normal((100, D), dtype=np.float32)
    exact = replace(model, network=Known(features))
    best = np.argsort(-model.codebook.margin(features))
    changed = features.copy()
    changed[best[:3]] *= -1
    chosen = golden.choose(exact, numbered(100), replace(model, network=Known(changed)))
    codes = model.codebook.encode(features)[best[3 : 3 + golden.GOLDEN_COUNT]]
    assert [vector["code"] for vector in chosen] == codes.tolist()
    all_changed = replace(model, network=Known(-features))
    assert golden.choose(exact, numbered(100), all_changed) == golden.choose(exact, numbered(100))


def test_one_image_is_chosen_for_each_code(model: Model) -> None:
    features = np.random.default_rng(0).standard_normal((3, D), dtype=np.float32)
    features = np.repeat(features, 10, axis=0)
    assert len(golden.choose(replace(model, network=Known(features)), numbered(30))) == 3


def test_images_near_another_code_are_not_chosen(model: Model) -> None:
    features = np.random.default_rng(0).standard_normal((2, D), dtype=np.float32)
    words = model.codebook.Z[0]
    features[0, :12] = words[0] + words[1]  # as near to one as to the other
    chosen = golden.choose(replace(model, network=Known(features)), numbered(2))
    assert [vector["code"] for vector in chosen] == model.codebook.encode(features)[1:].tolist()


def test_coincident_codewords_leave_nothing_to_verify_by(model: Model) -> None:
    Z = np.zeros((12, 16, 12), np.float32)
    Z[..., 0] = 1
    with pytest.raises(ArtifactError, match="largest margin of 2 is 0; the codewords coincide"):
        golden.choose(replace(model, codebook=Codebook(Z)), numbered(2))


def test_the_chosen_vectors_verify_a_model(model: Model, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (50, 3, 32, 32), dtype=np.uint8)
    about = {"golden": golden.choose(model, pixels)}
    golden.verify(replace(model, about=about), tmp_path)
    kept = golden.images(model.rules, about, tmp_path)
    assert kept.shape == (len(about["golden"]), 3, 32, 32)
    assert all((pixels == image).all(axis=(1, 2, 3)).any() for image in kept)


def test_other_features_fail_the_first_vector_that_differs(model: Model, tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((4, D), dtype=np.float32)
    right = replace(model, network=Known(features))
    about: dict[str, Any] = {"golden": golden.choose(right, numbered(4))}
    golden.verify(replace(right, about=about), tmp_path)
    third = decode.load(base64.b64decode(about["golden"][2]["png"]))
    features[np.asarray(third)[0, 0, 0]] *= -1
    with pytest.raises(ArtifactError, match=r"model\.safetensors: golden vector 2 encodes to \["):
        golden.verify(replace(right, about=about), tmp_path)


def test_a_network_that_fails_is_an_error_of_the_artifact(model: Model, tmp_path: Path) -> None:
    broken = replace(model, network=Broken(np.zeros((1, D), np.float32)))
    with pytest.raises(ArtifactError, match=r"config\.json: the network cannot .*: no room"):
        golden.verify(broken, tmp_path)


VECTOR = {"png": base64.b64encode(b"no image").decode(), "code": [0] * 12}
DAMAGES: dict[str, tuple[Any, str]] = {
    "none": ({}, "no golden vectors"),
    "empty": ({"golden": []}, "no golden vectors"),
    "no list": ({"golden": {"png": ""}}, "no golden vectors"),
    "no vector": ({"golden": [7]}, "golden vector 0 is damaged"),
    "no png": ({"golden": [{"code": [1]}]}, "golden vector 0 is damaged: 'png'"),
    "not base64": ({"golden": [{**VECTOR, "png": "????"}]}, "golden vector 0 is damaged"),
    "not text": ({"golden": [{**VECTOR, "png": 7}]}, "golden vector 0 is damaged"),
    "no image": ({"golden": [VECTOR]}, "golden vector 0 is damaged"),
    "empty image": ({"golden": [{**VECTOR, "png": ""}]}, "golden vector 0 is damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_vectors_are_refused(name: str, model: Model, tmp_path: Path) -> None:
    about, message = DAMAGES[name]
    with pytest.raises(ArtifactError, match=rf"config\.json: .*{message}"):
        golden.verify(replace(model, about=about), tmp_path)


@pytest.mark.parametrize("code", [None, 7, ["x"], {"a": 1}, [float("inf")]])
def test_a_damaged_code_is_refused(code: object, model: Model, tmp_path: Path) -> None:
    about = {"golden": [*model.about["golden"][:1], {**model.about["golden"][1], "code": code}]}
    with pytest.raises(ArtifactError, match=r"golden vector 1 (is damaged|encodes to)"):
        golden.verify(replace(model, about=about), tmp_path)


class WrongInBatches(Known):
    """A network that computes the last rows of large batches wrongly."""

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = super().features(pixels).copy()
        found[24:32] *= -1
        return found


def test_an_engine_that_computes_batches_wrongly_is_refused(model: Model, tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((40, D), dtype=np.float32)
    right = replace(model, network=Known(features), about={})
    about = {"golden": golden.choose(right, numbered(40))}
    golden.verify(replace(right, about=about), tmp_path)
    wrong = replace(model, network=WrongInBatches(features), about=about)
    message = "none computes other codes in batches than for single images: row 24 of 32 has"
    with pytest.raises(ArtifactError, match=message):
        golden.verify(wrong, tmp_path)
    golden.require_same_alone(right, numbered(40))
    with pytest.raises(ArtifactError, match=message):
        golden.require_same_alone(wrong, numbered(40))
