"""Infers the shapes of the tensors of a graph, node by node, for a batch of a known size.

ONNX says what a node makes of its inputs. The sizes that a graph computes from the shapes of its
tensors are computed here in the same way, so that all sizes are known before an engine runs.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpq.errors import GraphError
from gpq.model import conditions
from gpq.model.conditions import Shape

MOST_VALUES = 2**25  # of one tensor, for one image: 128 MiB
MOST_KNOWN = 1024  # values of a tensor that sizes are computed from
LARGEST = 2**31 - 1  # of these values; OpenVINO computes with 32 bits
TYPES = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT64", "INT32", "UINT8", "BOOL")
INTEGERS = ("INT64", "INT32", "BOOL")

Values = NDArray[np.generic]


def infer(graph: Any, opset: int, batch: int = 1) -> dict[str, Shape]:
    """Returns the shapes of all tensors of a graph whose input has a fixed shape.

    ``graph``: an onnx.GraphProto whose nodes are in order and use allowed operators. ``batch``:
    images in its input. Raises GraphError if a shape contradicts another, cannot be known before
    the graph runs or is too large, or if the output is not float32.
    """
    tensors = _Tensors(opset, MOST_VALUES * batch)
    tensors.add(graph.input[0].name, graph.input[0].type, "its input")
    for tensor in graph.initializer:
        tensors.add_weight(tensor)
    for node in graph.node:
        tensors.add_outputs(node)
    kind = tensors.kind(graph.output[0].name)
    if kind != "FLOAT":
        raise GraphError(f"its output is {kind}; features are float32, FLOAT")
    return tensors.shapes


def place_of(node: Any) -> str:
    """Names a node, for messages."""
    return f"the node {node.name[:80]!r} ({node.op_type})"


class _Tensors:
    """The shapes and types of the tensors of a graph, and the values that are known."""

    def __init__(self, opset: int, most: int) -> None:
        from onnx import helper

        self.shapes: dict[str, Shape] = {}
        self._types: dict[str, Any] = {}  # onnx.TypeProto
        self._known: dict[str, Values] = {}
        self._opset, self._most = opset, most
        self._imports = [helper.make_opsetid("", opset)]

    def kind(self, name: str) -> str:
        from onnx import TensorProto

        return str(TensorProto.DataType.Name(self._types[name].tensor_type.elem_type))

    def add(self, name: str, found: Any, place: str) -> None:
        """Adds a tensor of a type, an onnx.TypeProto, after it was checked."""
        from onnx import TensorProto

        of_tensor = found.tensor_type
        if of_tensor.elem_type not in [TensorProto.DataType.Value(kind) for kind in TYPES]:
            raise GraphError(f"{place} has values of a type that is not one of {', '.join(TYPES)}")
        dims = of_tensor.shape.dim
        if not of_tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
            raise GraphError(
                f"the size of {place} is not known before the network runs; export it with fixed "
                "sizes, except for the batch"
            )
        shape = tuple(dim.dim_value for dim in dims)
        if min(shape, default=1) < 1:
            raise GraphError(f"{place} has the shape {shape}, and no values")
        self._types[name], self.shapes[name] = found, shape

    def add_weight(self, tensor: Any) -> None:
        from onnx import TensorProto, helper, numpy_helper

        found = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        self.add(tensor.name, found, f"the weight {tensor.name!r}")
        if tensor.data_location != TensorProto.EXTERNAL and self._is_of_sizes(tensor.name):
            self._known[tensor.name] = numpy_helper.to_array(tensor)

    def add_outputs(self, node: Any) -> None:
        """Adds the outputs of a node whose inputs were added."""
        place = place_of(node)
        found = self._infer(node)
        for name in node.output:
            if name and name not in found:
                raise GraphError(f"{place} has the output {name!r}, of which nothing is known")
            if name:
                self.add(name, found[name], f"{name!r}, an output of {place},")
                self._require_room(name, place)
        conditions.check(
            node,
            [self.shapes.get(name) for name in node.input],
            [self.shapes[name] for name in node.output if name],
            [self._known.get(name) for name in node.input],
            place,
        )
        if len(node.output) == 1 and self._is_of_sizes(node.output[0]):
            value = self._evaluate(node)
            if value is not None:
                self._known[node.output[0]] = value

    def _require_room(self, name: str, place: str) -> None:
        shape = self.shapes[name]
        if math.prod(shape) > self._most:
            raise GraphError(
                f"{name!r}, an output of {place}, has the shape {shape}: more than {self._most} "
                "values"
            )

    def _infer(self, node: Any) -> dict[str, Any]:
        from onnx import defs, numpy_helper, shape_inference

        used = [name for name in node.input if name]
        try:
            schema = defs.get_schema(node.op_type, self._opset, "")
            found: dict[str, Any] = shape_inference.infer_node_outputs(
                schema,
                node,
                {name: self._types[name] for name in used},
                {n: numpy_helper.from_array(self._known[n]) for n in used if n in self._known},
                opset_imports=self._imports,
            )
        except Exception as error:  # onnx raises its own kinds, and RuntimeError
            line = " ".join(str(error).split())[:300]
            raise GraphError(f"{place_of(node)} is wrong: {line}") from error
        if "" in (*node.input[: schema.min_input], *node.output[: schema.min_output]):
            raise GraphError(f"{place_of(node)} lacks an input or an output that it must have")
        if node.op_type == "GroupNormalization":  # for which onnx has no inference
            found[node.output[0]] = self._types[node.input[0]]
        return found

    def _is_of_sizes(self, name: str) -> bool:
        return self.kind(name) in INTEGERS and math.prod(self.shapes[name]) <= MOST_KNOWN

    def _evaluate(self, node: Any) -> Values | None:
        """Returns the value of a node's output, or None if it is not known before it runs."""
        attributes = {attribute.name: attribute for attribute in node.attribute}
        shape = self.shapes[node.output[0]]
        if node.op_type == "Constant":
            return _constant(attributes)
        if node.op_type == "Shape":
            start, end = (attributes[n].i if n in attributes else None for n in ("start", "end"))
            return np.array(self.shapes[node.input[0]][start:end], np.int64)
        if node.op_type == "Size":
            return np.array(math.prod(self.shapes[node.input[0]]), np.int64)
        if node.op_type not in EVALUATED or not all(name in self._known for name in node.input):
            return None
        inputs = [self._known[name] for name in node.input]
        computes = node.op_type != "Slice"  # whose ends may be the largest integer: to the end
        if computes and not all(map(_small, inputs)):
            return None
        try:
            value = EVALUATED[node.op_type](inputs, attributes, shape)
        except (IndexError, TypeError, ValueError, ZeroDivisionError):  # the engine says the same
            return None
        dtype = {"INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}[self.kind(node.output[0])]
        return value.astype(dtype) if value.shape == shape and _small(value) else None


def _small(values: Values) -> bool:
    return bool((np.abs(values.astype(np.float64)) <= LARGEST).all())


def _constant(attributes: dict[str, Any]) -> Values | None:
    from onnx import numpy_helper

    if "value" in attributes:
        return np.array(numpy_helper.to_array(attributes["value"].t))
    if "value_int" in attributes:
        return np.array(attributes["value_int"].i, np.int64)
    if "value_ints" in attributes:
        return np.array(attributes["value_ints"].ints, np.int64)
    return None


def _axis(attributes: dict[str, Any]) -> int:
    return int(attributes["axis"].i) if "axis" in attributes else 0


def _slice(inputs: list[Any], attributes: dict[str, Any], shape: Shape) -> Values:
    data, starts, ends = inputs[:3]
    axes = inputs[3] if len(inputs) > 3 else range(len(starts))
    steps = inputs[4] if len(inputs) > 4 else [1] * len(starts)
    where = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where[axis] = slice(start, end, step)
    return np.asarray(data[tuple(where)])


def _quotient(inputs: list[Any], attributes: dict[str, Any], shape: Shape) -> Values:
    left, right = (x.astype(np.int64) for x in inputs)
    if not right.all():
        raise ZeroDivisionError
    return np.asarray(np.sign(left) * np.sign(right) * (np.abs(left) // np.abs(right)))


def _taken(inputs: list[Any], attributes: dict[str, Any], shape: Shape) -> Values:
    return np.asarray(np.take(inputs[0], inputs[1], _axis(attributes)))


def _filled(inputs: list[Any], attributes: dict[str, Any], shape: Shape) -> Values:
    value = _constant(attributes)
    return np.zeros(shape) if value is None else np.full(shape, value.item())


def _each(compute: Callable[..., Any]) -> Callable[..., Values]:
    """Makes a function for ``EVALUATED`` of one that takes integers or booleans elementwise."""
    return lambda inputs, attributes, shape: np.asarray(compute(*inputs))


def _shaped(inputs: list[Any], attributes: dict[str, Any], shape: Shape) -> Values:
    return np.asarray(inputs[0].reshape(shape))


# Functions of the inputs, the attributes and the shape of the output.
EVALUATED: dict[str, Callable[[list[Any], dict[str, Any], Shape], Values]] = {
    "Add": _each(lambda a, b: np.add(a, b, dtype=np.int64)),
    "Cast": _shaped,
    "Concat": lambda inputs, attributes, shape: np.concatenate(inputs, _axis(attributes)),
    "ConstantOfShape": _filled,
    "Div": _quotient,
    "Equal": _each(np.equal),
    "Expand": lambda inputs, attributes, shape: np.broadcast_to(inputs[0], shape),
    "Gather": _taken,
    "Greater": _each(np.greater),
    "Identity": _shaped,
    "Less": _each(np.less),
    "Mul": _each(lambda a, b: np.multiply(a, b, dtype=np.int64)),
    "Neg": _each(lambda a: np.negative(a, dtype=np.int64)),
    "Reshape": _shaped,
    "Slice": _slice,
    "Squeeze": _shaped,
    "Sub": _each(lambda a, b: np.subtract(a, b, dtype=np.int64)),
    "Unsqueeze": _shaped,
    "Where": _each(np.where),
}
