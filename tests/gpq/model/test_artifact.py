import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from gpq.errors import ArtifactError
from gpq.model import artifact, network
from gpq.model.codebook import Codebook, intra_normalise
from gpq.pixels.preprocess import Preprocess
from harness.models import SHIPPED, make_artifact


@pytest.fixture
def folder(random_model: Path, tmp_path: Path) -> Path:
    """A copy of an artifact that tests may damage."""
    return Path(shutil.copytree(random_model, tmp_path / "model"))


def edit(folder: Path, change) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_a_saved_model_loads_and_keeps_its_id(tmp_path: Path) -> None:
    id = make_artifact(tmp_path / "a")
    assert artifact.load(tmp_path / "a").id == id
    assert make_artifact(tmp_path / "again") == id
    assert make_artifact(tmp_path / "other", seed=1) != id
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_measuring_again_keeps_the_id_and_computing_otherwise_does_not(folder: Path) -> None:
    before = artifact.load(folder).id
    edit(folder, lambda c: c["about"].update(measured={"mAP": 0.5}))
    assert artifact.load(folder).id == before
    edit(folder, lambda c: c["compute"]["preprocess"].update(std=[63.0, 62.0, 66.0]))
    weights = (folder / "model.safetensors").read_bytes()
    assert artifact.model_id(weights, artifact.read_config(folder)["compute"]) != before


def test_batches_agree_with_single_images(random_model: Path) -> None:
    model = artifact.load(random_model)
    pixels = np.random.default_rng(3).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
    one_by_one = np.concatenate([model.encode(p[None]) for p in pixels])
    together = model.encode(pixels)
    sure = model.codebook.margin(model.features(pixels).numpy()) > artifact.GOLDEN_MARGIN
    assert sure.sum() > 32
    assert (one_by_one[sure] == together[sure]).all()
    assert together.shape == (64, model.code_bytes)
    assert model.lut(pixels).shape == (64, 12, 16)


def test_a_stored_code_searches_like_its_decoded_feature(random_model: Path) -> None:
    model = artifact.load(random_model)
    packed = np.array([[0x21, 0x43, 0x65, 0x87, 0xA9, 0xCB]], dtype=np.uint8)
    best = model.lut_of_code(packed)[0].argmax(axis=1)
    assert best.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("folder", sorted(SHIPPED.parent.iterdir()), ids=lambda path: path.name)
def test_every_shipped_model_loads_is_small_and_says_how_it_was_measured(folder: Path) -> None:
    about = artifact.load(folder).about
    assert about["measured"]["model"] == artifact.load(folder).id
    assert about["data"]["licence"]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12 * 2**20


DAMAGES = {
    "no config": (lambda f: (f / "config.json").unlink(), r"no finished model in this folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"safetensors: No such file"),
    "not json": (lambda f: (f / "config.json").write_text("{"), r"config\.json: not JSON"),
    "no object": (lambda f: (f / "config.json").write_text("[1]"), r"config\.json: not an object"),
    "format": (lambda f: edit(f, lambda c: c.update(format=99)), "format 99; this version reads"),
    "K": (lambda f: edit(f, lambda c: c["compute"].update(K=256)), "K is 256"),
    "network": (
        lambda f: edit(f, lambda c: c["compute"]["network"].update(name="vit")),
        "no network 'vit'",
    ),
    "width": (
        lambda f: edit(f, lambda c: c["compute"]["network"].update(width=8)),
        "size mismatch",
    ),
    "missing rule": (lambda f: edit(f, lambda c: c["compute"].pop("preprocess")), "'compute'"),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-100]
        ),
        r"model\.safetensors",
    ),
    "no golden": (lambda f: edit(f, lambda c: c["about"].update(golden=[])), "no golden vectors"),
    "golden damaged": (
        lambda f: edit(f, lambda c: c["about"]["golden"][0].update(png="????")),
        "golden vector 0 is damaged",
    ),
    "golden differs": (
        lambda f: edit(f, lambda c: c["about"]["golden"][1]["code"].reverse()),
        r"model\.safetensors: golden vector 1 encodes to",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_artifact_is_refused_by_file_and_reason(name: str, folder: Path) -> None:
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(ArtifactError, match=message):
        artifact.load(folder)


def test_other_weights_fail_the_golden_vectors(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["F.project.weight"] = -tensors["F.project.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="golden vector 0 encodes to"):
        artifact.load(folder)


@pytest.mark.parametrize("bad", [float("nan"), 2.0])
def test_codewords_that_are_not_unit_are_refused(bad: float, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["Z"][0, 0] = bad
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="unit codewords"):
        artifact.load(folder)


@pytest.mark.parametrize("bad", [float("nan"), 2.0])
def test_damaged_means_are_refused(bad: float, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["means"] = tensors["Z"].clone()
    tensors["means"][0, 0] = bad
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="means are not"):
        artifact.load(folder)


@pytest.mark.parametrize("shape", [(12, 3, 12), (12, 12), (11, 3, 12), (12, 3, 11)])
def test_classes_are_read_and_damaged_ones_are_refused(
    shape: tuple[int, ...], folder: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["classes"] = torch.full(shape, 0.1)
    save_file(tensors, folder / "model.safetensors")
    if shape == (12, 3, 12):
        assert (artifact.load(folder).codebook.classes == tensors["classes"].numpy()).all()
        tensors["classes"][0, 0] = float("nan")
        save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="classes are not"):
        artifact.load(folder)


def test_a_model_of_the_first_format_searches_by_its_codewords(folder: Path) -> None:
    before = artifact.load(folder)
    edit(folder, lambda c: c.update(format=1))
    model = artifact.load(folder)
    assert model.id == before.id
    assert model.codebook.means is None and model.codebook.classes is None
    features = np.random.default_rng(0).standard_normal((2, 144), dtype=np.float32)
    x = intra_normalise(features, 12)
    expected = np.einsum("bmd,mkd->bmk", x, model.codebook.Z)
    assert np.allclose(model.codebook.lut(features) * 12, expected, atol=1e-6)


def test_coincident_codewords_leave_nothing_to_verify_by(tmp_path: Path) -> None:
    Z = np.zeros((12, 16, 12), dtype=np.float32)
    Z[..., 0] = 1
    examples = np.zeros((2, 3, 32, 32), dtype=np.uint8)
    net = network.build("resnet", 144, 4)
    with pytest.raises(ArtifactError, match="codewords coincide"):
        artifact.save(
            tmp_path / "m",
            net,
            Codebook(Z),
            {"name": "resnet", "width": 4},
            Preprocess(32),
            {},
            examples,
        )
    assert not (tmp_path / "m").exists()


def test_golden_vectors_are_images_with_their_codes(random_model: Path) -> None:
    golden = artifact.read_config(random_model)["about"]["golden"]
    assert len(golden) >= 2
    assert len({tuple(g["code"]) for g in golden}) == len(golden)
    assert base64.b64decode(golden[0]["png"]).startswith(b"\x89PNG")


def test_the_shipped_model_is_small_whole_and_explains_itself() -> None:
    size = sum(p.stat().st_size for p in SHIPPED.iterdir())
    assert size <= 12 * 10**6
    model = artifact.load(SHIPPED)
    assert model.bits == 48
    about = model.about
    assert about["measured"]["mAP_tie_aware"] >= 0.70
    assert {"command", "seconds", "seed", "device"} <= set(about["training"])
    assert "CIFAR-10" in about["data"]["name"]
    assert "research" in about["data"]["licence"]
    prepared = model.prepare(Image.new("RGB", (100, 50), "red"))
    assert prepared.shape == (3, 32, 32)
