import base64
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from gpq.engine import engines
from gpq.errors import ArtifactError, GraphError
from gpq.model import artifact, golden, graph
from gpq.model.codebook import Score, intra_normalise
from harness.models import SHIPPED, make_artifact

SHIPPED_MODELS = sorted(SHIPPED.parent.iterdir())


@pytest.fixture
def folder(random_model: Path, tmp_path: Path) -> Path:
    """A copy of an artifact that tests may damage."""
    return Path(shutil.copytree(random_model, tmp_path / "model"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def edit_tensors(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def scored(score: Score) -> Callable[[dict[str, Any]], None]:
    """Returns a change that makes an artifact one of format 5 with this score."""

    def change(config: dict[str, Any]) -> None:
        config["format"] = artifact.SCORED_FORMAT
        config["compute"]["score"] = score

    return change


def without_graph(folder: Path) -> None:
    """Makes an artifact one of format 3."""
    (folder / graph.GRAPH).unlink()
    edit(folder, lambda c: c.update(format=3))


def add_tensor(folder: Path, name: str, tensor: Any) -> None:
    """Adds a tensor to an artifact without a graph, since its weights move to other places."""
    without_graph(folder)
    edit_tensors(folder, lambda tensors: tensors.update({name: tensor}))


def test_a_written_model_loads_and_keeps_its_id(tmp_path: Path) -> None:
    id = make_artifact(tmp_path / "a")
    assert artifact.load(tmp_path / "a").id == engines.load(tmp_path / "a").id == id
    assert make_artifact(tmp_path / "again") == id
    assert make_artifact(tmp_path / "other", seed=1) != id
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "config.json",
        "model.safetensors",
        "network.onnx",
    ]


def test_the_id_is_the_digest_of_the_weights_and_of_what_is_computed(folder: Path) -> None:
    compute = artifact.read_config(folder)["compute"]
    canonical = json.dumps(compute, sort_keys=True, separators=(",", ":")).encode()
    weights = (folder / "model.safetensors").read_bytes()
    assert artifact.load(folder).id == hashlib.sha256(weights + canonical).hexdigest()


def test_measuring_again_keeps_the_id_and_computing_otherwise_does_not(folder: Path) -> None:
    before = artifact.load(folder).id
    edit(folder, lambda c: c["about"].update(measured={"mAP": 0.5}))
    assert artifact.load(folder).id == before
    edit(folder, lambda c: c["compute"]["preprocess"].update(std=[63.0, 62.0, 66.0]))
    assert artifact.load(folder).id != before


def test_an_artifact_says_what_its_network_is(folder: Path) -> None:
    loaded = artifact.load(folder)
    assert loaded.folder == folder
    assert loaded.is_encoder
    assert loaded.dimension == 144
    assert loaded.precision == "float32"
    assert loaded.rules.size == 32
    assert loaded.cost is not None
    assert loaded.about["classes"] == ["a", "b"]
    shipped = artifact.load(SHIPPED)
    assert not shipped.is_encoder
    assert shipped.network["name"] == "resnet32"


def test_batches_agree_with_single_images(random_model: Path) -> None:
    model = engines.load(random_model)
    pixels = np.random.default_rng(3).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
    one_by_one = np.concatenate([model.encode(p[None]) for p in pixels])
    together = model.encode(pixels)
    sure = model.codebook.margin(model.features(pixels)) > golden.GOLDEN_MARGIN
    assert sure.sum() > 32
    assert (one_by_one[sure] == together[sure]).all()
    assert together.shape == (64, model.code_bytes)
    assert model.lut(pixels).shape == (64, 12, 16)


def test_a_stored_code_searches_like_its_decoded_feature(random_model: Path) -> None:
    model = engines.load(random_model)
    features = model.decode(bytes([0x21, 0x43, 0x65, 0x87, 0xA9, 0xCB]))
    best = model.codebook.lut(features[None])[0].argmax(axis=1)
    assert best.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize("score", ["l2", "dot", "hamming"])
def test_an_artifact_says_how_its_codes_are_compared(score: Score, tmp_path: Path) -> None:
    make_artifact(tmp_path / "scored", score=score)
    config = artifact.read_config(tmp_path / "scored")
    assert config["format"] == artifact.SCORED_FORMAT and config["compute"]["score"] == score
    model = engines.load(tmp_path / "scored")
    assert model.codebook.score == score
    pixels = np.random.default_rng(3).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
    one_by_one = np.concatenate([model.encode(p[None]) for p in pixels])
    sure = model.codebook.margin(model.features(pixels)) > golden.GOLDEN_MARGIN
    assert sure.sum() > 32
    assert (one_by_one == model.encode(pixels))[sure].all()


@pytest.mark.parametrize("folder", SHIPPED_MODELS, ids=lambda path: path.name)
def test_every_shipped_model_loads_is_small_and_says_how_it_was_measured(folder: Path) -> None:
    model = engines.load(folder)
    assert model.about["measured"]["model"] == model.id == artifact.load(folder).id
    assert model.about["data"]["licence"]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 24 * 10**6
    assert artifact.read_config(folder)["format"] == artifact.FORMAT


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"no finished model in this folder"),
    "no config": (lambda f: (f / "config.json").unlink(), r"no finished model in this folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"safetensors: No such file"),
    "no graph": (lambda f: (f / "network.onnx").unlink(), r"network\.onnx: the file is missing"),
    "not json": (lambda f: (f / "config.json").write_text("{"), r"config\.json: not JSON"),
    "deep json": (
        lambda f: (f / "config.json").write_text("[" * 100_000), r"config\.json: not JSON"
    ),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff{}"), r"config\.json: not JSON"),
    "no object": (lambda f: (f / "config.json").write_text("[1]"), r"config\.json: not an object"),
    "a folder": (
        lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()),
        r"config\.json: Is a directory",
    ),
    "no compute": (lambda f: edit(f, lambda c: c.pop("compute")), "with a 'compute' object"),
    "long config": (
        lambda f: (f / "config.json").write_text(" " * (artifact.MAX_CONFIG_BYTES + 1)),
        r"config\.json: larger than 4194304 bytes",
    ),
    "format": (lambda f: edit(f, lambda c: c.update(format=99)), "format 99; this version reads"),
    "no format": (lambda f: edit(f, lambda c: c.pop("format")), "format None; this version reads"),
    "K": (lambda f: edit(f, lambda c: c["compute"].update(K=256)), "K is 256"),
    "M": (lambda f: edit(f, lambda c: c["compute"].update(M=13)), "Z is not a table"),
    "text as M": (lambda f: edit(f, lambda c: c["compute"].update(M="x")), "'compute' is wrong"),
    "infinite M": (
        lambda f: edit(f, lambda c: c["compute"].update(M=math.inf)), "'compute' is wrong"
    ),
    "network": (
        lambda f: edit(f, lambda c: c["compute"].update(network={"name": 7})),
        "the network's name is not a text",
    ),
    "no network": (lambda f: edit(f, lambda c: c["compute"].pop("network")), "'compute' is wrong"),
    "list as network": (
        lambda f: edit(f, lambda c: c["compute"].update(network=[])), "'compute' is wrong"
    ),
    "precision": (
        lambda f: edit(f, lambda c: c["compute"].update(precision="int8")),
        "precision is 'int8'; known are float32, bfloat16",
    ),
    "list as precision": (
        lambda f: edit(f, lambda c: c["compute"].update(precision=[])), r"precision is \[\]"
    ),
    "score": (
        lambda f: edit(f, lambda c: c["compute"].update(score="chi2")),
        "score is 'chi2'; known are cosine, l2, dot, hamming",
    ),
    "score in format 4": (
        lambda f: edit(f, lambda c: c["compute"].update(score="l2")),
        "a score other than cosine needs format 5",
    ),
    "list as score": (lambda f: edit(f, lambda c: c["compute"].update(score=[])), "'compute'"),
    "words of a Hamming code": (
        lambda f: edit(f, scored("hamming")),
        "with the score hamming, Z is the 16 words of four signs",
    ),
    "means of an l2 code": (
        lambda f: (
            add_tensor(f, "means", np.zeros((12, 16, 12), np.float32)),
            edit(f, scored("l2")),
        ),
        "means and classes need the score cosine, not l2",
    ),
    "huge words": (
        lambda f: (
            without_graph(f),
            edit_tensors(f, lambda t: t["Z"].fill(1e5)),
            edit(f, scored("dot")),
        ),
        "Z has numbers above 10000",
    ),
    "missing rule": (lambda f: edit(f, lambda c: c["compute"].pop("preprocess")), "'compute'"),
    "unknown rule": (
        lambda f: edit(f, lambda c: c["compute"]["preprocess"].update(crop="random")),
        "does not support the image rules",
    ),
    "text as mean": (
        lambda f: edit(f, lambda c: c["compute"]["preprocess"].update(mean=["a", "b", "c"])),
        "'compute' is wrong",
    ),
    "two means": (
        lambda f: edit(f, lambda c: c["compute"]["preprocess"].update(mean=[1, 2])),
        "'compute' is wrong: .*mean",
    ),
    "no mean": (
        lambda f: edit(f, lambda c: c["compute"]["preprocess"].update(mean=[1, 2, math.nan])),
        "'compute' is wrong: .*mean",
    ),
    "deviation of 0": (
        lambda f: edit(f, lambda c: c["compute"]["preprocess"].update(std=[1, 2, 0])),
        "'compute' is wrong: .*std",
    ),
    "other size": (
        lambda f: edit(f, lambda c: c["compute"]["preprocess"].update(size=64)),
        r"network\.onnx: its images are 32×32 pixels, not 64×64",
    ),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-100]
        ),
        r"model\.safetensors",
    ),
    "no network tensors": (
        lambda f: edit_tensors(f, lambda t: t.pop("F.first.bias")),
        r"network\.onnx: the weight .* is Place\(.*\); model\.safetensors has",
    ),
    "other graph": (
        lambda f: (f / "network.onnx").write_bytes((SHIPPED / "network.onnx").read_bytes()),
        r"network\.onnx: not the graph that config\.json names in 'compute'",
    ),
    "empty graph": (
        lambda f: (f / "network.onnx").write_bytes(b""), r"network\.onnx: empty, or larger than"
    ),
    "graph is a folder": (
        lambda f: ((f / "network.onnx").unlink(), (f / "network.onnx").mkdir()),
        r"network\.onnx: Is a directory",
    ),
    "long graph": (
        lambda f: (f / "network.onnx").write_bytes(bytes(graph.MAX_GRAPH_BYTES + 1)),
        r"network\.onnx: empty, or larger than 16777216 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_artifact_is_refused_by_file_and_reason(name: str, folder: Path) -> None:
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(ArtifactError, match=message):
        artifact.load(folder)


VECTORS: dict[str, tuple[Callable[[list[Any]], object], str]] = {
    "no golden": (list.clear, "no golden vectors"),
    "golden damaged": (lambda g: g[0].update(png="????"), "golden vector 0 is damaged"),
    "golden differs": (
        lambda g: g[1]["code"].reverse(), r"model\.safetensors: golden vector 1 encodes to"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_a_model_whose_golden_vectors_fail_is_not_loaded(name: str, folder: Path) -> None:
    damage, message = VECTORS[name]
    edit(folder, lambda c: damage(c["about"]["golden"]))
    with pytest.raises(ArtifactError, match=message):
        engines.load(folder)


def test_other_weights_fail_the_golden_vectors(folder: Path) -> None:
    def turn(tensors: dict[str, Any]) -> None:
        tensors["F.project.weight"] = -tensors["F.project.weight"]

    edit_tensors(folder, turn)
    with pytest.raises(ArtifactError, match="golden vector 0 encodes to"):
        engines.load(folder)


def test_a_graph_that_is_not_allowed_is_refused_by_its_file(folder: Path) -> None:
    made = graph.parse((folder / graph.GRAPH).read_bytes())
    made.graph.initializer[0].external_data[0].value = "/etc/passwd"
    data = made.SerializeToString()
    (folder / graph.GRAPH).write_bytes(data)
    edit(folder, lambda c: c["compute"].update(graph=artifact.digest(data)))
    with pytest.raises(GraphError, match=r"network\.onnx: the weight .* lies in '/etc/passwd'"):
        artifact.load(folder)


def test_a_graph_that_config_json_does_not_name_is_checked_too(folder: Path) -> None:
    edit(folder, lambda c: c["compute"].pop("graph"))
    artifact.load(folder)
    (folder / graph.GRAPH).write_bytes(b"no graph")
    with pytest.raises(GraphError, match=r"network\.onnx: it is not an ONNX graph"):
        artifact.load(folder)


@pytest.mark.parametrize("bad", [float("nan"), 2.0])
def test_codewords_that_are_not_unit_are_refused(bad: float, folder: Path) -> None:
    edit_tensors(folder, lambda t: t["Z"].__setitem__((0, 0), bad))
    with pytest.raises(ArtifactError, match=r"unit codewords|'Z' has a value that is not a finite"):
        artifact.load(folder)


@pytest.mark.parametrize("bad", [float("nan"), 2.0])
def test_damaged_means_are_refused(bad: float, folder: Path) -> None:
    means = artifact.load(folder).codebook.Z.copy()
    means[0, 0] = bad
    add_tensor(folder, "means", means)
    with pytest.raises(ArtifactError, match=r"means are not|'means' has a value that is not"):
        artifact.load(folder)


def test_means_are_read(folder: Path) -> None:
    means = artifact.load(folder).codebook.Z * np.float32(0.5)
    add_tensor(folder, "means", means)
    found = artifact.load(folder).codebook.means
    assert found is not None
    assert (found == means).all()


@pytest.mark.parametrize("shape", [(12, 3, 12), (12, 12), (11, 3, 12), (12, 3, 11)])
def test_classes_are_read_and_damaged_ones_are_refused(
    shape: tuple[int, ...], folder: Path
) -> None:
    classes = np.full(shape, 0.1, np.float32)
    add_tensor(folder, "classes", classes)
    if shape == (12, 3, 12):
        found = artifact.load(folder).codebook.classes
        assert found is not None
        assert (found == classes).all()
    else:
        with pytest.raises(ArtifactError, match="classes are not"):
            artifact.load(folder)


@pytest.mark.parametrize("bad", [float("nan"), 2.0])
def test_classes_that_are_no_means_are_refused(bad: float, folder: Path) -> None:
    classes = np.full((12, 3, 12), 0.1, np.float32)
    classes[0, 0] = bad
    add_tensor(folder, "classes", classes)
    with pytest.raises(ArtifactError, match=r"classes are not|'classes' has a value that is not"):
        artifact.load(folder)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_model_of_an_earlier_format_loads_without_a_graph(number: int, folder: Path) -> None:
    before = artifact.load(folder)
    without_graph(folder)
    edit(folder, lambda c: c.update(format=number))
    loaded = artifact.load(folder)
    assert loaded.id == before.id
    assert loaded.cost is None
    assert loaded.precision == "float32"


def test_a_model_of_format_3_may_have_a_graph_beside_it(folder: Path) -> None:
    before = artifact.load(folder)
    edit(folder, lambda c: c.update(format=3))
    edit(folder, lambda c: c["compute"].pop("graph"))
    loaded = artifact.load(folder)
    assert loaded.cost == before.cost
    assert engines.load(folder, engines.Options(engine="onnxruntime")).id == loaded.id


def test_a_model_of_the_first_format_searches_by_its_codewords(folder: Path) -> None:
    before = engines.load(folder)
    edit(folder, lambda c: c.update(format=1))
    model = engines.load(folder)
    assert model.id == before.id
    assert model.codebook.means is None and model.codebook.classes is None
    features = np.random.default_rng(0).standard_normal((2, 144), dtype=np.float32)
    x = intra_normalise(features, 12)
    expected = np.einsum("bmd,mkd->bmk", x, model.codebook.Z)
    assert np.allclose(model.codebook.lut(features) * 12, expected, atol=1e-6)


def test_an_added_graph_keeps_the_id(folder: Path) -> None:
    before = artifact.load(folder)
    network = (folder / graph.GRAPH).read_bytes()
    without_graph(folder)
    artifact.add_graph(folder, network)
    after = artifact.load(folder)
    assert artifact.read_config(folder)["format"] == 4
    assert (after.id, after.cost) == (before.id, before.cost)


def test_writing_without_a_graph_removes_an_earlier_one(folder: Path) -> None:
    config = artifact.read_config(folder)
    compute = {name: value for name, value in config["compute"].items() if name != "graph"}
    tensors = (folder / "model.safetensors").read_bytes()
    artifact.write(folder, tensors, None, compute, config["about"])
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert artifact.read_config(folder)["format"] == 3
    assert artifact.load(folder).cost is None


def test_an_artifact_that_no_database_can_keep_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(file.stat().st_size for file in folder.iterdir())
    monkeypatch.setattr(artifact, "MAX_BYTES", size)
    artifact.load(folder)
    monkeypatch.setattr(artifact, "MAX_BYTES", size - 1)
    with pytest.raises(ArtifactError, match=f"its files have {size} bytes; at most {size - 1}"):
        artifact.load(folder)


@pytest.mark.parametrize("precision", artifact.PRECISIONS)
def test_the_precision_is_read(precision: str, tmp_path: Path) -> None:
    make_artifact(tmp_path, precision=precision)
    assert artifact.load(tmp_path).precision == precision


def test_golden_vectors_are_images_with_their_codes(random_model: Path) -> None:
    vectors = artifact.read_config(random_model)["about"]["golden"]
    assert len(vectors) >= 2
    assert len({tuple(g["code"]) for g in vectors}) == len(vectors)
    assert base64.b64decode(vectors[0]["png"]).startswith(b"\x89PNG")


def test_the_shipped_model_is_small_whole_and_explains_itself() -> None:
    size = sum(p.stat().st_size for p in SHIPPED.iterdir())
    assert size <= 12 * 10**6
    model = engines.load(SHIPPED)
    assert model.bits == 48
    about = model.about
    assert about["measured"]["mAP_tie_aware"] >= 0.70
    assert {"command", "seconds", "seed", "device"} <= set(about["training"])
    assert "CIFAR-10" in about["data"]["name"]
    assert "research" in about["data"]["licence"]
    prepared = model.prepare(Image.new("RGB", (100, 50), "red"))
    assert prepared.shape == (3, 32, 32)
