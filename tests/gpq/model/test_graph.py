import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper
from safetensors.numpy import save

from gpq.errors import GraphError
from gpq.model import cost, graph, operators, weights
from gpq.model.cost import Cost
from gpq.model.weights import Weights
from harness import models
from harness.models import SHIPPED

SIDE = 32
D = 144
node = helper.make_node
POOLED = [node("GlobalMaxPool", ["x"], ["pooled"]), node("Flatten", ["pooled"], ["features"])]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The weights of the graph of ``harness.models``."""
    path = tmp_path_factory.mktemp("weights") / weights.WEIGHTS
    path.write_bytes(save(models.random_tensors(np.random.default_rng(0), 12)))
    return weights.read(path)


@pytest.fixture
def valid(stored: Weights) -> ModelProto:
    """A graph that is allowed, which tests may damage."""
    return models.graph(stored, SIDE)


def check(made: ModelProto | bytes, stored: Weights, dimension: int = D) -> Cost:
    data = made if isinstance(made, bytes) else made.SerializeToString()
    return graph.check(data, stored, SIDE, dimension)


def built(nodes: list[Any], opset: int = 20, **constants: Any) -> bytes:
    """Returns a graph that computes ``features`` (B,3) of ``images``."""
    made = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(made, opset_imports=opsets).SerializeToString()


def alone(
    kind: str,
    *inputs: str,
    outputs: int = 1,
    opset: int = 20,
    constants: dict[str, Any] | None = None,
    **attributes: Any,
) -> bytes:
    """Returns a graph with one node of its own, whose first output is pooled."""
    names = ["x", "y", "z", "w"][:outputs]
    made = node(kind, ["images", *inputs], names, name="asked", **attributes)
    return built([made, *POOLED], opset, **(constants or {}))


def floats(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def test_a_valid_graph_costs_what_it_computes(valid: ModelProto, stored: Weights) -> None:
    first, second = 8 * 16 * 16, 16 * 8 * 8
    products = first * 27 + second * 72 + 144 * 32
    assert check(valid, stored) == Cost(values=3 * 32 * 32 + first, multiplications=products)


@pytest.mark.parametrize("folder", sorted(SHIPPED.parent.iterdir()), ids=lambda path: path.name)
def test_the_shipped_graphs_are_allowed(folder: Path) -> None:
    compute = json.loads((folder / "config.json").read_text())["compute"]
    found = graph.check(
        (folder / graph.GRAPH).read_bytes(),
        weights.read(folder / weights.WEIGHTS),
        compute["preprocess"]["size"],
        compute["M"] * compute["d"],
    )
    assert found.values < 2**22
    assert 10**8 < found.multiplications < 5 * 10**8


def edit_input(made: ModelProto, dims: list[int | str]) -> None:
    made.graph.input[0].type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, dims))


def add_subgraph(made: ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [])
    made.graph.node[1].attribute.append(helper.make_attribute("body", inner))


def reverse(made: ModelProto) -> None:
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(reversed(nodes))


FRAMES: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "custom domain": (
        lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)),
        "imports operators of com.microsoft",
    ),
    "node of a domain": (
        lambda m: setattr(m.graph.node[1], "domain", "org.evil"),
        "the operator 'org.evil.Relu', which is not allowed",
    ),
    "no opset": (lambda m: m.ClearField("opset_import"), "opset is missing"),
    "two opsets": (
        lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 20)),
        "opset is 20 and 20",
    ),
    "old opset": (
        lambda m: setattr(m.opset_import[0], "version", 12),
        "opset is 12; this version supports 13 to 24",
    ),
    "new opset": (lambda m: setattr(m.opset_import[0], "version", 25), "opset is 25"),
    "functions": (lambda m: m.functions.add(name="f", domain="d"), "it has functions"),
    "training": (lambda m: m.training_info.add(), "training information"),
    "sparse weights": (lambda m: m.graph.sparse_initializer.add(), "sparse weights"),
    "subgraph": (add_subgraph, r"\(Relu\) has an attribute of a kind that is not allowed"),
    "reference": (
        lambda m: m.graph.node[0].attribute.add(
            name="group", ref_attr_name="g", type=AttributeProto.INT
        ),
        "attribute of a kind that is not allowed",
    ),
    "two attributes": (
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("pads", [0] * 4)),
        r"\(Conv\) has two attributes of one name",
    ),
    "two inputs": (
        lambda m: m.graph.input.add().CopyFrom(m.graph.input[0]), "has 2 inputs and 1 outputs"
    ),
    "two outputs": (
        lambda m: m.graph.output.add().CopyFrom(m.graph.output[0]), "has 1 inputs and 2 outputs"
    ),
    "no input": (lambda m: m.graph.ClearField("input"), "has 0 inputs"),
    "no graph": (lambda m: m.ClearField("graph"), "has 0 inputs and 0 outputs"),
    "nameless input": (lambda m: setattr(m.graph.input[0], "name", ""), "has no name"),
    "channels last": (
        lambda m: edit_input(m, ["batch", SIDE, SIDE, 3]), r"\(\?, 32, 32, 3\), channels last"
    ),
    "fixed batch": (lambda m: edit_input(m, [1, 3, SIDE, SIDE]), "batch size is fixed at 1"),
    "other side": (
        lambda m: edit_input(m, ["batch", 3, 48, 64]), "its images are 64×48 pixels, not 32×32"
    ),
    "grey": (lambda m: edit_input(m, ["batch", 1, SIDE, SIDE]), r"\(\?, 1, 32, 32\) instead of"),
    "rank": (lambda m: edit_input(m, ["batch", 3]), r"\(\?, 3\) instead of \(batch, 3, 32, 32\)"),
    "bytes": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.UINT8),
        "not a float32 tensor",
    ),
    "sequence": (
        lambda m: m.graph.input[0].type.sequence_type.elem_type.tensor_type.SetInParent(),
        "not a float32 tensor",
    ),
    "no shape": (
        lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"), "of known rank"
    ),
    "order": (reverse, r"\(Gemm\) uses 'flat' before it is computed"),
    "twice": (
        lambda m: m.graph.node.add().CopyFrom(m.graph.node[1]), r"\(Relu\) computes 'b' again"
    ),
    "weight twice": (
        lambda m: m.graph.initializer.add().CopyFrom(m.graph.initializer[0]),
        "two weights or inputs of the name 'F.first.bias'",
    ),
    "weight as input": (
        lambda m: setattr(m.graph.initializer[0], "name", "images"),
        "two weights or inputs of the name 'images'",
    ),
    "output dangles": (
        lambda m: setattr(m.graph.output[0], "name", "nowhere"),
        "no node computes its output 'nowhere'",
    ),
    "output is the input": (
        lambda m: setattr(m.graph.output[0], "name", "images"), "no node computes its output"
    ),
    "output is a weight": (
        lambda m: setattr(m.graph.output[0], "name", "F.first.bias"),
        "no node computes its output",
    ),
    "output has no name": (lambda m: setattr(m.graph.output[0], "name", ""), "no node computes"),
    "no outputs": (
        lambda m: m.graph.node[1].ClearField("output"), r"\(Conv\) uses 'b' before|has no output"
    ),
    "empty output": (
        lambda m: m.graph.node.append(node("Relu", ["a"], [""])), r"\(Relu\) has no output"
    ),
    "too many nodes": (
        lambda m: m.graph.node.extend([m.graph.node[1]] * graph.MOST_NODES),
        "has 20009 nodes; at most 20000",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_a_graph_of_another_frame_is_refused(name: str, valid: ModelProto, stored: Weights) -> None:
    damage, message = FRAMES[name]
    damage(valid)
    with pytest.raises(GraphError, match=message):
        check(valid, stored)


@pytest.mark.parametrize(
    "kind",
    ["Loop", "If", "Scan", "NonZero", "RandomNormal", "RandomUniformLike", "Tile", "Unique",
     "Resize", "LSTM", "ImageDecoder", "Multinomial", "Invented", "SequenceEmpty", ""],
)  # fmt: skip
def test_an_operator_that_is_not_listed_is_refused(
    kind: str, valid: ModelProto, stored: Weights
) -> None:
    assert kind not in operators.ALLOWED
    valid.graph.node[1].op_type = kind
    with pytest.raises(GraphError, match=f"it uses the operator '{kind}', which is not allowed"):
        check(valid, stored)


def test_features_of_another_dimension_are_refused(valid: ModelProto, stored: Weights) -> None:
    with pytest.raises(GraphError, match=r"\(1, 144\) for a batch of 1; .*need \(batch, 145\)"):
        check(valid, stored, 145)


def test_rows_that_don_t_follow_the_batch_are_refused(stored: Weights) -> None:
    pooled = node("GlobalMaxPool", ["images"], ["x"])
    nodes = [
        pooled,
        node("ReduceMax", ["x"], ["y"], keepdims=0),
        node("Expand", ["y", "to"], ["features"]),
    ]
    data = built(nodes, to=np.array([1, 3]))
    with pytest.raises(GraphError, match=r"\(1, 3\) for a batch of 2"):
        check(data, stored, 3)
    nodes = [pooled, node("Flatten", ["x"], ["features"], axis=0)]
    with pytest.raises(GraphError, match=r"\(1, 6\) for a batch of 2"):
        check(built(nodes), stored, 3)


def test_features_of_another_type_are_refused(stored: Weights) -> None:
    data = built(
        [node("GlobalMaxPool", ["images"], ["x"]), node("Flatten", ["x"], ["y"]),
         node("Cast", ["y"], ["features"], to=TensorProto.FLOAT16)]
    )  # fmt: skip
    with pytest.raises(GraphError, match="its output is FLOAT16; features are float32"):
        check(data, stored, 3)


def external(made: ModelProto) -> Any:
    return made.graph.initializer[0]


def edit_entry(key: str, value: str) -> Callable[[ModelProto], object]:
    def edit(made: ModelProto) -> None:
        next(e for e in external(made).external_data if e.key == key).value = value

    return edit


def inline(made: ModelProto, **fields: Any) -> Any:
    """Makes the first weight a tensor inside the graph."""
    tensor = external(made)
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(floats(8), name))
    for field, value in fields.items():
        if field == "dims":
            tensor.dims[:] = value
        else:
            setattr(tensor, field, value)
    return tensor


WEIGHTS: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "other file": (
        edit_entry("location", "other.bin"), "lies in 'other.bin'; weights may lie only"
    ),
    "absolute": (edit_entry("location", "/etc/passwd"), "lies in '/etc/passwd'"),
    "parent": (
        edit_entry("location", "../model.safetensors"), r"lies in '\.\./model\.safetensors'"
    ),
    "same place, other name": (
        edit_entry("location", "./model.safetensors"), r"lies in '\./model\.safetensors'"
    ),
    "memory of another library": (
        edit_entry("location", "*/_ORT_MEM_ADDR_/*"), "weights may lie only in"
    ),
    "no location": (lambda m: external(m).external_data.pop(0), "lies in ''"),
    "no length": (lambda m: external(m).external_data.pop(2), "has no offset or no length"),
    "not a number": (edit_entry("offset", "x"), "has no offset or no length"),
    "another notation": (edit_entry("offset", " 8"), "more than a location, an offset and"),
    "two locations": (
        lambda m: external(m).external_data.insert(
            0, onnx.StringStringEntryProto(key="location", value="/etc/passwd")
        ),
        "more than a location, an offset and a length",
    ),
    "negative offset": (edit_entry("offset", "-8"), "model.safetensors has nothing there"),
    "beyond the end": (edit_entry("offset", str(2**62)), "has nothing there"),
    "other length": (edit_entry("length", "16"), "has nothing there"),
    "other shape": (lambda m: external(m).dims.append(1), r"shape=\(8, 1\).* has Place\("),
    "other type": (
        lambda m: setattr(external(m), "data_type", TensorProto.INT32), "kind='INT32'.* has Place"
    ),
    "unknown type": (lambda m: setattr(external(m), "data_type", 99), "of an unknown type"),
    "both": (
        lambda m: setattr(external(m), "raw_data", b"1234"), "both inside and outside the graph"
    ),
    "both, as floats": (
        lambda m: external(m).float_data.append(1), "both inside and outside the graph"
    ),
    "no name": (lambda m: setattr(external(m), "name", ""), "has no name"),
    "inline with a place": (
        lambda m: inline(m).external_data.add(key="location", value="x"),
        "has values outside the graph",
    ),
    "inline of other dims": (lambda m: inline(m, dims=[9]), "'F.first.bias' is damaged"),
    "inline and huge": (lambda m: inline(m, dims=[2**40, 2**40]), "has the shape"),
    "inline and negative": (lambda m: inline(m, dims=[-8]), r"has the shape \(-8,\)"),
    "inline and twice negative": (lambda m: inline(m, dims=[-2, -4]), "has the shape"),
    "inline without values": (lambda m: inline(m, dims=[0], raw_data=b""), r"has the shape \(0,\)"),
    "inline of many axes": (lambda m: inline(m, dims=[1] * 99 + [8]), "is damaged"),
    "inline with another field": (lambda m: inline(m, data_type=TensorProto.INT64), "is damaged"),
    "inline texts": (lambda m: inline(m, data_type=TensorProto.STRING), "not one of FLOAT, "),
    "inline complex": (lambda m: inline(m, data_type=TensorProto.COMPLEX64), "not one of FLOAT, "),
    "inline of no type": (lambda m: inline(m, data_type=0), "not one of FLOAT, "),
    "inline of an unknown type": (lambda m: inline(m, data_type=77), "not one of FLOAT, "),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_not_where_they_should_be_are_refused(
    name: str, valid: ModelProto, stored: Weights
) -> None:
    damage, message = WEIGHTS[name]
    damage(valid)
    with pytest.raises(GraphError, match=message):
        check(valid, stored)


def test_a_weight_inside_the_graph_is_allowed(valid: ModelProto, stored: Weights) -> None:
    inline(valid)
    check(valid, stored)


W3 = {"w": floats(3, 3, 3, 3)}
NODES: dict[str, tuple[bytes, str]] = {
    "stride 0": (
        alone("Conv", "w", constants=W3, strides=[0, 0]), r"'asked' \(Conv\) has strides \[0, 0\]"
    ),
    "dilation 0": (alone("Conv", "w", constants=W3, dilations=[0, 1]), r"dilations \[0, 1\]"),
    "group 0": (alone("Conv", "w", constants=W3, group=0), r"has group \[0\]"),
    "group -1": (alone("Conv", "w", constants=W3, group=-1), r"has group \[-1\]"),
    "kernel 0": (alone("Conv", "w", constants=W3, kernel_shape=[0, 3]), r"kernel_shape \[0, 3\]"),
    "pads -1": (alone("Conv", "w", constants=W3, pads=[0, 0, -1, 0]), r"has pads \[0, 0, -1, 0\]"),
    "huge pads": (alone("Conv", "w", constants=W3, pads=[2**40] * 4), "each is 0 to 32768"),
    "huge stride": (alone("Conv", "w", constants=W3, strides=[2**63 - 1] * 2), "has strides"),
    "two strides": (alone("Conv", "w", constants=W3, strides=[1]), r"\(Conv\) is wrong: .*strides"),
    "pool of 0": (alone("MaxPool", kernel_shape=[0, 0]), r"\(MaxPool\) has kernel_shape"),
    "pool by 0": (alone("MaxPool", kernel_shape=[2, 2], strides=[0, 0]), "has strides"),
    "pool dilated by 0": (alone("MaxPool", kernel_shape=[2, 2], dilations=[0, 0]), "dilations"),
    "pool cuts": (alone("AveragePool", kernel_shape=[2, 2], pads=[-1] * 4), "has pads"),
    "pool without a kernel": (alone("MaxPool"), r"\(MaxPool\) is wrong: .*kernel_shape"),
    "kernel as a number": (alone("MaxPool", kernel_shape=2), r"\(MaxPool\) is wrong"),
    "pool larger than the image": (
        alone("MaxPool", kernel_shape=[40, 40]), r"\(MaxPool\).*(is wrong|shape \(1, 3, -?\d)"
    ),
    "blocks of 0": (alone("SpaceToDepth", blocksize=0), "has blocksize"),
    "window of 0": (alone("LRN", size=0), r"\(LRN\) has size"),
    "axis of 33 bits": (
        alone("Gather", "i", constants={"i": np.array([0])}, axis=2**32), "an axis beyond 64"
    ),
    "fewer values": (  # OpenVINO would read beyond its memory
        alone("Reshape", "s", constants={"s": np.array([1, 3, 8, 8])}),
        r"\(Reshape\) cannot make \(1, 3, 8, 8\) of \(1, 3, 32, 32\), \(4,\): its inputs don't fit",
    ),
    "other channels": (
        alone("Conv", "w", constants={"w": floats(3, 4, 3, 3)}), r"\(Conv\) cannot make"
    ),
    "unknown mode": (
        alone("Pad", "p", constants={"p": np.zeros(8, np.int64)}, mode="evil"), "has mode b'evil'"
    ),
    "Conv with one input": (alone("Conv"), r"\(Conv\) is wrong: .*input size 1 not in range"),
    "Conv with an empty input": (alone("Conv", ""), r"\(Conv\) (is wrong|lacks an input)"),
    "MatMul with one input": (alone("MatMul"), r"\(MatMul\) is wrong: .*input size 1"),
    "MatMul with an empty input": (alone("MatMul", ""), r"\(MatMul\) (is wrong|lacks an input)"),
    "Gemm with one input": (alone("Gemm"), r"\(Gemm\) is wrong: .*input size 1"),
    "Relu with two inputs": (alone("Relu", "images"), r"\(Relu\) is wrong: .*input size 2"),
    "Relu with two outputs": (alone("Relu", outputs=2), r"\(Relu\) is wrong: .*output size 2"),
    "attribute that does not exist": (alone("Relu", evil=1), r"\(Relu\) is wrong: .*evil"),
    "operator of a later opset": (alone("Gelu", opset=19), r"\(Gelu\) is wrong: .*No schema"),
    "text": (alone("Cast", to=TensorProto.STRING), "of a type that is not one of FLOAT, "),
    "complex": (alone("Cast", to=TensorProto.COMPLEX64), r"\(Cast\)"),
    "no type": (alone("Cast", to=0), r"\(Cast\)"),
    "unknown type": (alone("Cast", to=77), r"\(Cast\)"),
    "more parts than outputs": (
        alone("Split", axis=1, num_outputs=3, outputs=2), r"\(Split\) has 2 outputs, not \[3\]"
    ),
    "fewer parts than outputs": (
        alone("Split", axis=1, num_outputs=3, outputs=4), r"\(Split\) has 4 outputs, not \[3\]"
    ),
    "no parts": (alone("Split", axis=1, num_outputs=0, outputs=3), "has 3 outputs, not"),
    "draws": (
        alone("Dropout", "r", "t", constants={"r": np.float32(0.5), "t": np.True_}),
        r"\(Dropout\) is in training mode",
    ),
    "statistics of the batch": (
        alone("BatchNormalization", *["s"] * 4, constants={"s": floats(3)}, training_mode=1),
        r"\(BatchNormalization\) is in training mode",
    ),
    "constant text": (
        built([node("Constant", [], ["x"], value_string="evil"), *POOLED]), "has value_string"
    ),
    "constant texts": (
        built([node("Constant", [], ["x"], value_strings=["a"]), *POOLED]), "kind that is not"
    ),
    "constant outside": (
        built([node("Constant", [], ["x"], value=TensorProto(
            dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)), *POOLED]),
        r"\(Constant\) has values outside the graph",
    ),
    "constant of other dims": (
        built([node("Constant", [], ["x"], value=TensorProto(
            dims=[3], data_type=TensorProto.FLOAT, raw_data=b"1234")), *POOLED]),
        r"\(Constant\) is damaged",
    ),
    "constant of nothing": (built([node("Constant", [], ["x"]), *POOLED]), r"\(Constant\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_a_node_that_cannot_run_is_refused(name: str, stored: Weights) -> None:
    data, message = NODES[name]
    with pytest.raises(GraphError, match=message):
        check(data, stored, 3)


def test_inputs_that_a_node_may_lack_are_allowed(stored: Weights) -> None:
    check(alone("Clip", "", "most", constants={"most": np.float32(1)}), stored, 3)
    check(alone("Dropout", "", ""), stored, 3)


ROOM: dict[str, tuple[bytes, str]] = {
    "ConstantOfShape": (
        built([node("ConstantOfShape", ["s"], ["x"]), *POOLED], s=np.array([1, 3, 40_000, 40_000])),
        r"'x', an output of .*\(ConstantOfShape\), has the shape \(1, 3, 40000, 40000\): more than",
    ),
    "Expand": (
        alone("Expand", "s", constants={"s": np.array([20_000, 1, 1, 1, 1])}),
        r"\(Expand\), has the shape \(20000, 1, 3, 32, 32\): more than",
    ),
    "Pad": (
        alone("Pad", "p", constants={"p": np.array([0, 0, 20_000, 0, 0, 0, 0, 20_000])}),
        r"\(Pad\), has the shape \(1, 3, 20032, 20032\)",
    ),
    "Concat": (
        built([node("Concat", ["images"] * 20_000, ["x"], axis=2), *POOLED]),
        r"\(Concat\), has the shape",
    ),
    "wide kernel": (
        alone("AveragePool", kernel_shape=[32_767, 32_767], pads=[16_383] * 4),
        "multiplications for 1 images",
    ),
    "size of the largest integer": (
        built([node("ConstantOfShape", ["s"], ["x"]), *POOLED], s=np.array([2**62, 4])),
        r"'x', an output of .*\(ConstantOfShape\), has the shape \(4611686018427387904, 4\)",
    ),
    "values at the same time": (
        built(
            [node("Pad", ["images", "p"], [f"x{n}"]) for n in range(20)]
            + [node("Sum", [f"x{n}" for n in range(20)], ["x"]), *POOLED],
            p=np.array([0, 0, 3000, 0, 0, 0, 0, 3000]),
        ),
        r"it needs \d+ values at the same time for 1 images",
    ),
    "many passes": (
        built(
            [node("Pad", ["images", "p"], ["x0"])]
            + [node("Relu", [f"x{n}"], [f"x{n + 1}"]) for n in range(700)]
            + [node("GlobalMaxPool", ["x700"], ["pooled"]), POOLED[1]],
            p=np.array([0, 0, 3000, 0, 0, 0, 0, 3000]),
        ),
        "values that its operators read and write for 1 images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROOM)
def test_a_graph_that_asks_for_too_much_is_refused_before_it_runs(
    name: str, stored: Weights
) -> None:
    data, message = ROOM[name]
    with pytest.raises(GraphError, match=message):
        check(data, stored, 3)


def test_a_graph_of_few_bytes_cannot_ask_for_gigabytes(stored: Weights) -> None:
    data = built([node("ConstantOfShape", ["s"], ["features"])], s=np.array([40_000, 40_000]))
    assert len(data) < 210
    with pytest.raises(GraphError, match=r"\(40000, 40000\): more than 33554432 values"):
        check(data, stored)


def test_a_convolution_with_a_huge_kernel_is_refused(
    valid: ModelProto, stored: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = check(valid, stored).multiplications
    monkeypatch.setattr(cost, "MOST_MULTIPLICATIONS", needed)
    check(valid, stored)
    monkeypatch.setattr(cost, "MOST_MULTIPLICATIONS", needed - 1)
    with pytest.raises(GraphError, match=f"it needs {needed} multiplications for 1 images"):
        check(valid, stored)


def batches(power: int) -> list[Any]:
    """Returns nodes that make a tensor of (batch to a power) values."""
    return [
        node("Shape", ["images"], ["size"], end=1),
        node("Concat", ["size"] * power, ["sizes"], axis=0),
        node("ConstantOfShape", ["sizes"], ["many"]),
        node("ReduceMax", ["many"], ["most"], keepdims=0),
        node("Add", ["images", "most"], ["x"]),
        *POOLED,
    ]


def test_a_graph_that_grows_faster_than_its_batch_is_refused(stored: Weights) -> None:
    check(built(batches(1)), stored, 3)
    with pytest.raises(GraphError, match=r"has the shape \((32|16)(, \1)+\): more than"):
        check(built(batches(7)), stored, 3)
    pairs = [
        node("Flatten", ["images"], ["rows"]),
        node("Transpose", ["rows"], ["columns"], perm=[1, 0]),
        node("MatMul", ["rows", "columns"], ["products"]),
        node("ReduceMax", ["products"], ["most"], keepdims=0),
        node("Add", ["images", "most"], ["x"]),
        *POOLED,
    ]
    with pytest.raises(GraphError, match="a batch of 2 images needs more than 2 times as much"):
        check(built(pairs), stored, 3)


BYTES = {
    "nothing": b"",
    "zeros": bytes(100),
    "text": b"this is no graph, but it is long enough for one",
    "image": b"\x89PNG\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_graph_are_refused(name: str, stored: Weights) -> None:
    with pytest.raises(GraphError):
        check(BYTES[name], stored)


def test_a_truncated_graph_is_refused_wherever_it_ends(valid: ModelProto, stored: Weights) -> None:
    data = valid.SerializeToString()
    for end in range(0, len(data) - 20, 7):  # what comes last are the versions of operators
        with pytest.raises(GraphError):
            check(data[:end], stored)


def test_a_deeply_nested_graph_is_refused(stored: Weights) -> None:
    made = b""
    for _ in range(2000):  # a graph (7) in a graph's node (1), in its attribute (5), as a graph (6)
        for tag in (6, 5, 1):
            made = bytes([tag << 3 | 2]) + _varint(len(made)) + made
    with pytest.raises(GraphError, match="it is not an ONNX graph"):
        check(b"\x3a" + _varint(len(made)) + made, stored)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def test_a_file_that_is_too_long_is_refused_unread(
    valid: ModelProto, stored: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = valid.SerializeToString()
    monkeypatch.setattr(graph, "MAX_GRAPH_BYTES", len(data) - 1)
    with pytest.raises(GraphError, match=f"it has {len(data)} bytes, at most {len(data) - 1} are"):
        check(data, stored)


NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    32,
    33,
    255,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**40,
    2**63 - 1,
    -(2**63),
)


def mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(len(made) - 8)
        match chance.randrange(4):
            case 0:
                made[at] ^= 1 << chance.randrange(8)
            case 1:
                made[at] = chance.choice([0, 127, 128, 255])
            case 2:
                del made[at : at + chance.randrange(1, 8)]
            case 3:
                made[at:at] = made[:at][-chance.randrange(1, 100) :]
    return bytes(made)


def mutated_fields(data: bytes, chance: random.Random) -> bytes:
    made = onnx.load_model_from_string(data)
    changed = chance.choice(made.graph.node)
    names = ["", "images", "new", *(n.output[0] for n in made.graph.node)]
    names += [tensor.name for tensor in made.graph.initializer]
    match chance.randrange(9):
        case 0 if changed.input:
            changed.input[chance.randrange(len(changed.input))] = chance.choice(names)
        case 1:
            changed.input.append(chance.choice(names))
        case 2 if changed.input:
            changed.input.pop(chance.randrange(len(changed.input)))
        case 3:
            changed.output[0] = chance.choice(names)
        case 4:
            changed.op_type = chance.choice(sorted(operators.ALLOWED))
        case 5 if changed.attribute:
            attribute = chance.choice(changed.attribute)
            attribute.i = chance.choice(NUMBERS)
            if attribute.ints:
                attribute.ints[chance.randrange(len(attribute.ints))] = attribute.i
        case 6:
            tensor = chance.choice(made.graph.initializer)
            tensor.dims.append(chance.choice(NUMBERS))
        case 7:
            tensor = chance.choice(made.graph.initializer)
            tensor.data_type = chance.randrange(24)
        case 8:
            entry = chance.choice(chance.choice(made.graph.initializer).external_data)
            entry.value = str(chance.choice(NUMBERS))
    return bytes(made.SerializeToString())


def test_no_damage_raises_another_error(valid: ModelProto, stored: Weights) -> None:
    data = valid.SerializeToString()
    chance = random.Random(0)
    refused = 0
    for _ in range(400):
        made = chance.choice([mutated_bytes, mutated_fields])(data, chance)
        try:
            check(made, stored)
        except GraphError as error:
            assert str(error)
            refused += 1
    assert 200 < refused < 400
