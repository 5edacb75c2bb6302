"""Encoders from ONNX files: read, refused, and learnt on."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.vision_transformer import VisionTransformer

from gpq.engine import engines
from gpq.engine.engines import Options
from gpq.model import artifact
from gpq.pixels.preprocess import Preprocess
from trainer.__main__ import main
from trainer.artifacts import encoder
from trainer.artifacts.cut import cut
from trainer.data.image_sets import Standard
from trainer.errors import TrainerError
from trainer.frozen.part import FrozenEncoder

SIZE = 32
RULES = Preprocess(SIZE, (123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
LEGACY, DYNAMO = "legacy", "dynamo"


def export(network: nn.Module, path: Path, exporter: str, size: int = SIZE) -> Path:
    """Exports a network as its users do, with one of torch's two exporters."""
    images = torch.zeros(2, 3, size, size)
    named = {"input_names": ["pixel_values"], "output_names": ["embedding"], "verbose": False}
    if exporter == LEGACY:
        axes = {"pixel_values": {0: "batch"}, "embedding": {0: "batch"}}
        torch.onnx.export(network, (images,), path, dynamo=False, dynamic_axes=axes, **named)
    else:
        batch = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(network, (images,), path, dynamo=True, dynamic_shapes=batch, **named)
    return path


def tiny_transformer() -> nn.Module:
    return VisionTransformer(SIZE, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: get_model("resnet18", weights=None),
    "shufflenet": lambda: get_model("shufflenet_v2_x0_5", weights=None),
    "mobilenet": lambda: get_model("mobilenet_v3_small", weights=None),
    "transformer": tiny_transformer,
}


@pytest.mark.filterwarnings("ignore")  # of torch's exporters
@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        ("resnet18", LEGACY),
        ("mobilenet", LEGACY),
        ("shufflenet", LEGACY),
        ("shufflenet", DYNAMO),
        ("transformer", LEGACY),
        ("transformer", DYNAMO),
    ],
)
def test_encoders_of_torchvision_compute_what_torch_computes(
    name: str, exporter: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    read = encoder.read(export(network, tmp_path / "encoder.onnx", exporter), RULES)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, SIZE, SIZE), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(RULES.normalise(pixels))).numpy()
    assert read.dimension == expected.shape[1]
    for engine in ("openvino", "onnxruntime"):
        (tmp_path / engine).mkdir()
        model = encoder.load_alone(read, tmp_path / engine, Options(engine))
        for images, features in ((pixels, expected), (pixels[:1], expected[:1])):
            found = model.features(images)
            assert np.abs(found - features).max() <= 1e-4 * np.abs(expected).max()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the file of a small encoder."""
    torch.manual_seed(0)
    network = get_model("shufflenet_v2_x0_5", weights=None).eval()
    return export(network, tmp_path_factory.mktemp("encoder") / "encoder.onnx", DYNAMO)


def graph_of(
    nodes: list[onnx.NodeProto],
    images: list[int | str],
    outputs: list[str],
    *,
    domain: str = "",
    weights: list[TensorProto] | None = None,
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, images)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        weights or [],
    )
    opsets = [helper.make_opsetid("", 17)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


POOLED = [
    helper.make_node("GlobalAveragePool", ["x"], ["p"]),
    helper.make_node("Flatten", ["p"], ["y"]),
]
MAX_PIXELS_TOO = [
    *POOLED,
    helper.make_node("GlobalMaxPool", ["x"], ["q"]),
    helper.make_node("Flatten", ["q"], ["z"]),
]
TOKENS = [
    helper.make_node("Flatten", ["x"], ["f"], axis=3),
    helper.make_node("Constant", [], ["shape"], value_ints=[-1, 3, SIZE * SIZE]),
    helper.make_node("Reshape", ["f", "shape"], ["y"]),
]
CUSTOM = [helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft")]
OF_PIXELS = [
    helper.make_node("NonZero", ["x"], ["n"]),
    helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT),
]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (graph_of(MAX_PIXELS_TOO, ["b", 3, SIZE, SIZE], ["y", "z"]), "1 inputs and 2 outputs"),
        (graph_of(POOLED, ["b", SIZE, SIZE, 3], ["y"]), "channels last"),
        (graph_of(POOLED, ["b", 1, SIZE, SIZE], ["y"]), "instead of"),
        (graph_of(POOLED, ["b", 3, SIZE], ["y"]), "instead of"),
        (graph_of(POOLED, [8, 3, SIZE, SIZE], ["y"]), "batch size is fixed at 8"),
        (graph_of(POOLED, ["b", 3, 224, 224], ["y"]), "224×224 pixels, not 32×32"),
        (graph_of(TOKENS, ["b", 3, SIZE, SIZE], ["y"]), "one row of features for each image"),
        (graph_of(OF_PIXELS, ["b", 3, SIZE, SIZE], ["y"]), "'NonZero', which is not allowed"),
        (graph_of(CUSTOM, ["b", 3, SIZE, SIZE], ["y"], domain="com.microsoft"), "com.microsoft"),
    ],
)
def test_refuses_other_graphs(model: onnx.ModelProto, message: str, tmp_path: Path) -> None:
    file = tmp_path / "encoder.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(TrainerError, match=message):
        encoder.read(file, RULES)


def test_takes_images_of_any_size_if_the_file_does(tmp_path: Path) -> None:
    file = tmp_path / "encoder.onnx"
    file.write_bytes(graph_of(POOLED, ["b", 3, "h", "w"], ["y"]).SerializeToString())
    assert encoder.read(file, RULES).dimension == 3


def with_external_weight(folder: Path, location: str) -> Path:
    """Writes a graph with a weight of 12 bytes in another file."""
    weight = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[1, 3, 1, 1], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        weight.external_data.add(key=key, value=value)
    nodes = [helper.make_node("Mul", ["x", "w"], ["m"]), *POOLED]
    nodes[1] = helper.make_node("GlobalAveragePool", ["m"], ["p"])
    file = folder / "encoder.onnx"
    model = graph_of(nodes, ["b", 3, SIZE, SIZE], ["y"], weights=[weight])
    file.write_bytes(model.SerializeToString())
    return file


def test_reads_weights_from_another_file_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(np.ones(3, np.float32).tobytes())
    assert encoder.read(with_external_weight(tmp_path, "weights.bin"), RULES).dimension == 3


def test_refuses_three_gigabytes_before_reading_them(tmp_path: Path) -> None:
    file = with_external_weight(tmp_path, "weights.bin")
    with (tmp_path / "weights.bin").open("wb") as weights:
        os.truncate(weights.fileno(), 3 * 2**30)  # takes no room on the disk
    with pytest.raises(TrainerError, match="at most 900000000 are allowed"):
        encoder.read(file, RULES)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "missing.bin"])
def test_refuses_weights_elsewhere(location: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    (tmp_path / "inside").mkdir()
    with pytest.raises(TrainerError, match="onnx:"):
        encoder.read(with_external_weight(tmp_path / "inside", location), RULES)


@pytest.mark.parametrize("content", [b"", b"no graph at all", bytes(100)])
def test_refuses_other_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(content)
    with pytest.raises(TrainerError, match="onnx:"):
        encoder.read(tmp_path / "encoder.onnx", RULES)
    with pytest.raises(TrainerError, match="No such file"):
        encoder.read(tmp_path / "missing.onnx", RULES)


def words(file: Path, data: Path, out: Path) -> list[str]:
    return [
        "train", "--data", str(data), "--out", str(out), "--network", f"onnx:{file}",
        "--size", str(SIZE), "--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.25",
        "--bits", "24", "--steps", "20", "--batch-labelled", "16", "--batch-unlabelled", "16",
    ]  # fmt: skip


def test_learns_on_the_features_of_an_encoder(exported: Path, sample: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "labeled").symlink_to(sample / "test")
    out = tmp_path / "model"
    assert main(words(exported, data, out)) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["compute"]["network"]["name"] == artifact.ENCODER
    assert config["compute"]["preprocess"]["mean"] == [127.5, 127.5, 127.5]
    assert str(exported.parent) not in json.dumps(config)
    assert "onnx:FILE" in config["about"]["training"]["command"]
    pixels = np.random.default_rng(1).integers(0, 256, (5, 3, SIZE, SIZE), dtype=np.uint8)
    codes = [engines.load(out, Options(e)).encode(pixels) for e in ("openvino", "onnxruntime")]
    assert (codes[0] == codes[1]).all()
    assert (out / "report.html").exists()
    short = tmp_path / "short"
    cut(out, 12, short)
    assert (engines.load(short).encode(pixels)[:, 0] == codes[0][:, 0]).all()
    assert main([*words(exported, data, out), "--resume"]) == 0


def test_the_last_layer_undoes_the_standardising(exported: Path) -> None:
    read = encoder.read(exported, RULES)
    random = np.random.default_rng(0)
    mean = random.standard_normal(read.dimension).astype(np.float32)
    deviation = random.uniform(0.5, 2, read.dimension).astype(np.float32)
    head = nn.Sequential()
    head.project = nn.Linear(read.dimension, 24)
    standard = Standard(torch.from_numpy(mean), torch.from_numpy(deviation))
    made = FrozenEncoder(read, 24).finish(head, standard)
    assert made.described == {"name": artifact.ENCODER, "encoder": read.digest}
    tensors = made.tensors
    x = random.standard_normal((4, read.dimension)).astype(np.float32)
    standardised: Tensor = torch.from_numpy((x - mean) / deviation)
    expected = head.project(standardised).detach().numpy()
    found = x @ tensors["F.project.weight"].T + tensors["F.project.bias"]
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--mean", "123", "116", "103"], "divide yours by 255"),
        (["--std", "0", "1", "1"], "divide yours by 255"),
        (["--pretrained"], "--pretrained is not for"),
        (["--width", "8"], "--width is not for"),
        (["--freeze", "2"], "--freeze 2: --network onnx:FILE is frozen whole"),
    ],
)
def test_refuses_options_that_do_not_fit(
    change: list[str],
    message: str,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*words(exported, tmp_path, tmp_path / "out"), *change]) == 1
    assert message in capsys.readouterr().err


def test_needs_size_mean_and_std(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["train", *places, "--network", f"onnx:{exported}"]) == 1
    assert "needs --size, --mean and --std" in capsys.readouterr().err
    assert main(["train", *places, "--mean", "0.5", "0.5", "0.5"]) == 1
    assert "only for --network onnx:FILE" in capsys.readouterr().err
    assert main(["train", *places, "--network", "nothing"]) == 1
    assert "--network nothing: choose one of" in capsys.readouterr().err
