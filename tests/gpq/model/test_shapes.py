from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from gpq.errors import GraphError
from gpq.model import shapes
from gpq.model.operators import ALLOWED, OPSETS

SIDE = 8
node = helper.make_node


def graph(nodes: list[Any], batch: int = 1, **constants: Any) -> Any:
    return helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )


def of_size(nodes: list[Any], batch: int = 1, **constants: Any) -> shapes.Shape:
    """Returns the shape of a tensor that is made as large as ``size``, which the nodes compute."""
    made = node("ConstantOfShape", ["size"], ["features"])
    return shapes.infer(graph([*nodes, made], batch, **constants), 20, batch)["features"]


SHAPE = node("Shape", ["images"], ["all"])
COMPUTED: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "Shape": ([node("Shape", ["images"], ["size"], start=1, end=-1)], {}),
    "Shape from the end": ([node("Shape", ["images"], ["size"], start=-2)], {}),
    "Shape beyond the end": ([node("Shape", ["images"], ["size"], start=-9, end=99)], {}),
    "Size": ([node("Size", ["images"], ["n"]), node("Unsqueeze", ["n", "zero"], ["size"])], {}),
    "Gather": ([SHAPE, node("Gather", ["all", "i"], ["size"])], {"i": [0, -1, 1]}),
    "Slice": ([SHAPE, node("Slice", ["all", "i", "end"], ["size"])], {"i": [1]}),
    "Slice backwards": (
        [SHAPE, node("Slice", ["all", "i", "end", "zero", "minus"], ["size"])],
        {"i": [3], "end": [-(2**63)], "minus": [-2]},
    ),
    "Concat": ([SHAPE, node("Concat", ["all", "i"], ["size"], axis=0)], {"i": [5, 2]}),
    "Squeeze": (
        [
            SHAPE,
            node("Unsqueeze", ["all", "zero"], ["u"]),
            node("Squeeze", ["u", "zero"], ["size"]),
        ],
        {},
    ),
    "Reshape": (
        [node("Reshape", ["i", "minus"], ["size"])],
        {"i": [[2, 3], [4, 5]], "minus": [-1]},
    ),
    "Expand": ([node("Expand", ["i", "n"], ["size"])], {"i": [2], "n": [3]}),
    "Add": ([SHAPE, node("Add", ["all", "i"], ["size"])], {"i": [5]}),
    "Sub": ([SHAPE, node("Sub", ["i", "all"], ["size"])], {"i": [9]}),
    "Mul": ([SHAPE, node("Mul", ["all", "i"], ["size"])], {"i": [1, 2, 3, 4]}),
    "Div": ([SHAPE, node("Div", ["i", "all"], ["size"])], {"i": [9, 9, -17, 17]}),
    "Neg": ([node("Neg", ["i"], ["size"])], {"i": [-4, -2]}),
    "Cast": ([SHAPE, node("Cast", ["all"], ["s"], to=6), node("Cast", ["s"], ["size"], to=7)], {}),
    "Cast to bool": (
        [
            node("Cast", ["i"], ["s"], to=9),
            node("Cast", ["s"], ["t"], to=7),
            node("Add", ["t", "i"], ["size"]),
        ],
        {"i": [40, 3]},
    ),
    "Where": (
        [
            SHAPE,
            node("Greater", ["all", "i"], ["more"]),
            node("Where", ["more", "i", "all"], ["size"]),
        ],
        {"i": [4]},
    ),
    "Equal": (
        [SHAPE, node("Equal", ["all", "i"], ["same"]), node("Where", ["same", "i", "j"], ["size"])],
        {"i": [3], "j": [7]},
    ),
    "Less": (
        [SHAPE, node("Less", ["all", "i"], ["less"]), node("Where", ["less", "i", "j"], ["size"])],
        {"i": [4], "j": [7]},
    ),
    "ConstantOfShape": (
        [node("ConstantOfShape", ["i"], ["size"], value=helper.make_tensor("v", 7, [1], [6]))],
        {"i": [2]},
    ),
    "Constant": ([node("Constant", [], ["size"], value_ints=[2, 3])], {}),
    "Constant of one number": (
        [node("Constant", [], ["n"], value_int=4), node("Unsqueeze", ["n", "zero"], ["size"])],
        {},
    ),
    "Identity": ([SHAPE, node("Identity", ["all"], ["size"])], {}),
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", COMPUTED)
def test_sizes_are_computed_as_they_will_be_when_the_graph_runs(name: str, batch: int) -> None:
    nodes, constants = COMPUTED[name]
    constants = {"zero": [0], "end": [2**63 - 1], **constants}
    if name.startswith("Div"):
        constants["i"] = [9, 9, 17, 17]
    made = helper.make_model(
        graph(nodes, batch, **constants), opset_imports=[helper.make_opsetid("", 20)]
    )
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("size", TensorProto.INT64, None))
    images = np.zeros((batch, 3, SIDE, SIDE), np.float32)
    expected = ReferenceEvaluator(made).run(None, {"images": images})[0]
    assert of_size(nodes, batch, **constants) == tuple(expected.tolist())


def test_quotients_are_rounded_towards_zero() -> None:
    nodes = [node("Div", ["a", "b"], ["q"]), node("Neg", ["q"], ["size"])]
    assert of_size(nodes, a=[-17, 17, -4], b=[4, -4, 4]) == (4, 4, 1)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (
            [
                node("Cast", ["images"], ["c"], to=7),
                node("Reshape", ["c", "i"], ["r"]),
                node("Gather", ["r", "z"], ["size"]),
            ],
            {"i": [-1], "z": [0]},
        ),
        ([node("Mul", ["i", "i"], ["size"])], {"i": [2**31, 1]}),
        ([node("Mul", ["i", "i"], ["m"]), node("Div", ["m", "i"], ["size"])], {"i": [2**17]}),
        ([node("Add", ["i", "i"], ["a"]), node("Sub", ["a", "i"], ["size"])], {"i": [2**63 - 1]}),
        ([node("Cast", ["i"], ["f"], to=1), node("Cast", ["f"], ["size"], to=7)], {"i": [5]}),
        ([node("Div", ["i", "z"], ["size"])], {"i": [5], "z": [0]}),
        ([node("Gather", ["i", "z"], ["size"])], {"i": np.arange(2000), "z": [3]}),
    ],
    ids=["pixels", "large", "large on the way", "wraps around", "float", "nothing", "long"],
)
def test_sizes_that_engines_may_compute_otherwise_are_not_known(
    nodes: list[Any], constants: dict[str, Any]
) -> None:
    with pytest.raises(GraphError, match=r"the size of 'features', an output of .* is not known"):
        of_size(nodes, **constants)


def test_each_allowed_operator_exists_in_the_last_version() -> None:
    for kind in ALLOWED:
        assert defs.get_schema(kind, OPSETS[-1], "").name == kind


def test_a_normalisation_of_groups_keeps_the_shape() -> None:
    made = node("GroupNormalization", ["images", "one", "one"], ["features"], num_groups=3)
    found = shapes.infer(graph([made], 2, one=np.ones(3, np.float32)), 21, 2)
    assert found == {"images": (2, 3, 8, 8), "one": (3,), "features": (2, 3, 8, 8)}


def test_a_tensor_without_values_is_refused() -> None:
    with pytest.raises(GraphError, match=r"'features', an output of .* has the shape \(0, 3\)"):
        of_size([node("Constant", [], ["size"], value_ints=[0, 3])])
    with pytest.raises(GraphError, match=r"the weight 'w' has the shape \(0,\), and no values"):
        shapes.infer(graph([node("Relu", ["images"], ["features"])], w=np.zeros(0, np.float32)), 20)


def test_the_limit_on_values_is_for_each_image_and_not_for_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [node("Relu", ["images"], ["features"])]
    large = np.zeros(4 * 3 * SIDE * SIDE + 1, np.float32)
    monkeypatch.setattr(shapes, "MOST_VALUES", 3 * SIDE * SIDE)
    assert shapes.infer(graph(made, 4, w=large), 20, 4)["features"] == (4, 3, SIDE, SIDE)
    monkeypatch.setattr(shapes, "MOST_VALUES", 3 * SIDE * SIDE - 1)
    with pytest.raises(GraphError, match=r"\(Relu\), has the shape \(4, 3, 8, 8\): more than 764"):
        shapes.infer(graph(made, 4), 20, 4)


def test_the_input_must_have_a_fixed_size() -> None:
    made = graph([node("Relu", ["images"], ["features"])])
    made.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(GraphError, match="the size of its input is not known before"):
        shapes.infer(made, 20)
