import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.errors import ArtifactError
from gpq.model import artifact, weights
from gpq.model.codebook import Codebook
from gpq.model.graph import GRAPH
from gpq.model.weights import WEIGHTS
from harness.trained import make_trained_artifact
from tests.trainer.artifacts.models import contents, make_older
from trainer.artifacts.cut import cut
from trainer.artifacts.saving import derive, repoint, save
from trainer.errors import TrainerError

PIXELS = np.random.default_rng(5).integers(0, 256, (48, 3, 32, 32), dtype=np.uint8)


def config(folder: Path) -> dict[str, object]:
    return json.loads((folder / "config.json").read_text())


def test_a_saved_model_has_its_graph_and_loads_in_every_engine(trained_model: Path) -> None:
    found = artifact.load(trained_model)
    assert sorted(contents(trained_model)) == ["config.json", "model.safetensors", "network.onnx"]
    written = config(trained_model)
    assert written["format"] == 4
    assert written["compute"]["graph"] == artifact.digest((trained_model / GRAPH).read_bytes())
    assert (found.network, found.cost is None) == ({"name": "resnet", "width": 4}, False)
    models = [engines.load(trained_model, Options(engine)) for engine in engines.ENGINES]
    assert {model.id for model in models} == {found.id}
    assert [model.network.engine for model in models] == list(engines.ENGINES)
    first, *others = [model.features(PIXELS) for model in models]
    for other in others:
        assert np.allclose(other, first, atol=1e-5 * np.abs(first).max())


def test_the_same_weights_give_the_same_files(trained_model: Path, tmp_path: Path) -> None:
    make_trained_artifact(tmp_path)
    assert contents(tmp_path) == contents(trained_model)


def test_a_model_without_a_graph_replaces_one_with_a_graph(
    trained_model: Path, tmp_path: Path
) -> None:
    make_trained_artifact(tmp_path)
    found, written = artifact.load(tmp_path), config(tmp_path)
    network = {name: t for name, t in found.weights.tensors.items() if name != "Z"}
    about = {name: value for name, value in written["about"].items() if name != "golden"}
    id = save(tmp_path, network, found.codebook, None, written["compute"], about, PIXELS)
    assert not (tmp_path / GRAPH).exists()
    assert config(tmp_path)["format"] == 3
    assert "graph" not in config(tmp_path)["compute"]
    assert artifact.load(tmp_path).id == id != found.id
    assert engines.load(tmp_path).network.engine == "torch"


def test_a_model_that_cannot_be_verified_is_not_written(
    trained_model: Path, tmp_path: Path
) -> None:
    found = artifact.load(trained_model)
    alike = np.zeros_like(found.codebook.Z)
    alike[..., 0] = 1
    with pytest.raises(ArtifactError, match="codewords coincide"):
        derive(found, tmp_path / "new", Codebook(alike), found.about)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("model", ["trained_model", "random_model"])
def test_a_derived_model_has_the_same_network_and_its_own_codebook(
    model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = artifact.load(request.getfixturevalue(model))
    turned = replace(source.codebook, Z=np.ascontiguousarray(source.codebook.Z[:, ::-1]))
    id = derive(source, tmp_path, turned, {**source.about, "note": "turned"})
    before, after = engines.load(source.folder), engines.load(tmp_path)
    assert after.id == id != before.id
    assert np.allclose(after.features(PIXELS), before.features(PIXELS), atol=1e-5)
    codes = [each.codebook.encode(each.features(PIXELS)) for each in (before, after)]
    assert (codes[1] == 15 - codes[0]).mean() > 0.999
    assert after.about["note"] == "turned"
    assert config(tmp_path)["compute"]["network"] == dict(source.network)


def test_a_model_made_from_one_without_a_graph_has_none(
    trained_model: Path, tmp_path: Path
) -> None:
    older = make_older(trained_model, tmp_path / "older", 3)
    cut(older, 24, tmp_path / "short")
    assert config(tmp_path / "short")["format"] == 3
    whole, short = engines.load(older), engines.load(tmp_path / "short")
    assert (short.encode(PIXELS) == whole.encode(PIXELS)[:, :3]).all()
    assert np.array_equal(short.codebook.classes, whole.codebook.classes[:6])


def test_a_cut_model_runs_in_torch_and_as_a_graph(trained_model: Path, tmp_path: Path) -> None:
    cut(trained_model, 24, tmp_path)
    wanted = engines.load(trained_model, Options("torch")).encode(PIXELS)[:, :3]
    for engine in engines.ENGINES:
        assert (engines.load(tmp_path, Options(engine)).encode(PIXELS) == wanted).all()


def test_a_network_without_the_last_layer_cannot_be_cut(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.artifacts.cut.LAST_LAYER", ("head.weight", "head.bias"))
    with pytest.raises(TrainerError, match=r"has no layer 'head\.weight'"):
        cut(random_model, 24, tmp_path)


def test_a_graph_points_to_its_weights_wherever_they_stand(
    random_model: Path, tmp_path: Path
) -> None:
    made, old = (random_model / GRAPH).read_bytes(), weights.read(random_model / WEIGHTS)
    new = {name: replace(place, offset=place.offset + 640) for name, place in old.places.items()}
    moved = repoint(made, old.places, new)
    assert repoint(moved, new, old.places) == repoint(made, old.places, old.places)
    pairs = zip(
        onnx.load_model_from_string(made).graph.initializer,
        onnx.load_model_from_string(moved).graph.initializer,
        strict=True,
    )
    for before, after in pairs:
        offsets = [
            int(entry.value)
            for tensor in (before, after)
            for entry in tensor.external_data
            if entry.key == "offset"
        ]
        assert before.name == after.name and offsets[1] - offsets[0] == 640
