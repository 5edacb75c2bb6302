"""Checks the graph of a network, ``network.onnx``, before an engine may load it.

The graph is F: one input (B,3,S,S) float32, one output (B,D) float32, of any batch size B. Its
operators are those of ``operators.ALLOWED``. Its weights stand in ``model.safetensors``, to which
its initialisers point by offset and length, as ONNX's external data. Everything else is refused:
a graph of a few hundred bytes can ask an engine for any amount of memory or time. What it needs is
therefore computed for every size of batch that engines run.
"""

import math
from collections import Counter
from typing import Any

from gpq.errors import GraphError
from gpq.model.conditions import Shape, integers
from gpq.model.cost import BATCHES, Cost, check_growth, cost_of
from gpq.model.operators import ALLOWED, OPSETS
from gpq.model.shapes import TYPES, infer, place_of
from gpq.model.weights import WEIGHTS, Place, Weights

GRAPH = "network.onnx"
MAX_GRAPH_BYTES = 16 * 2**20
MOST_NODES = 20_000
MOST_AXES = 64
MOST_PIXELS = 2**15  # of a window's side, of its pads and steps
DEFAULT_DOMAINS = ("", "ai.onnx")
WINDOWS = ("AveragePool", "Conv", "LRN", "MaxPool", "SpaceToDepth")
WINDOW_ATTRIBUTES = {  # and the least value of each
    "kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 0, "group": 1, "size": 1,
    "blocksize": 1,
}  # fmt: skip
WORDS = (  # values of attributes
    b"NOTSET", b"SAME_LOWER", b"SAME_UPPER", b"VALID", b"constant", b"edge", b"reflect", b"wrap",
    b"none", b"tanh", b"up",
)  # fmt: skip
INLINE = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def check(data: bytes, weights: Weights, size: int, dimension: int) -> Cost:
    """Checks a graph for images of ``size`` pixels a side and features of ``dimension`` values.

    Raises GraphError, which says what is refused.
    """
    model = parse(data)
    check_frame(model)
    check_nodes(model.graph)
    _check_weights(model.graph, weights)
    costs = []
    for batch in BATCHES:
        fixed = fix_sizes(model, batch, size)
        shapes = infer_shapes(fixed)
        found = shapes[model.graph.output[0].name]
        if found != (batch, dimension):
            raise GraphError(
                f"its output is {named(found)} for a batch of {batch}; the codebooks need (batch, "
                f"{dimension}), one row of features for each image"
            )
        costs.append(cost_of(fixed.graph, shapes, batch))
    check_growth(costs)
    return costs[0]


def external(name: str, place: Place) -> Any:
    """Returns an initialiser, an onnx.TensorProto, that points to a tensor of model.safetensors."""
    from onnx import TensorProto

    tensor = TensorProto(
        name=name,
        data_type=TensorProto.DataType.Value(place.kind),
        dims=place.shape,
        data_location=TensorProto.EXTERNAL,
    )
    values = {"location": WEIGHTS, "offset": place.offset, "length": place.length}
    for key, value in values.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def parse(data: bytes) -> Any:
    """Parses an onnx.ModelProto. Raises GraphError."""
    import onnx  # takes 0.1 s, and a machine that only trains may lack it
    from google.protobuf.message import DecodeError

    if len(data) > MAX_GRAPH_BYTES:
        raise GraphError(
            f"it has {len(data)} bytes, at most {MAX_GRAPH_BYTES} are allowed: large weights "
            "belong into model.safetensors"
        )
    try:
        return onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise GraphError(f"it is not an ONNX graph: {error}") from error


def check_frame(model: Any) -> None:
    """Checks what a graph says of itself. Raises GraphError."""
    custom = sorted({o.domain for o in model.opset_import} - set(DEFAULT_DOMAINS))
    if custom:
        raise GraphError(
            f"it imports operators of {', '.join(custom)}; only ONNX's own may be used"
        )
    versions = [o.version for o in model.opset_import]
    if len(versions) != 1 or versions[0] not in OPSETS:
        raise GraphError(
            f"its opset is {' and '.join(map(str, versions)) or 'missing'}; this version supports "
            f"{OPSETS[0]} to {OPSETS[-1]}"
        )
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        raise GraphError("it has functions, training information or sparse weights")
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise GraphError(
            f"it has {len(graph.input)} inputs and {len(graph.output)} outputs; one of each is "
            "needed: the images and their features"
        )
    names = Counter([graph.input[0].name, *(tensor.name for tensor in graph.initializer)])
    again = next((name for name, count in names.items() if count > 1), None)
    if again is not None:
        raise GraphError(f"it has two weights or inputs of the name {again!r}")
    if "" in names:
        raise GraphError("its input or one of its weights has no name")


def check_nodes(graph: Any) -> None:
    """Checks the operators of a graph, their order and their attributes. Raises GraphError."""
    if len(graph.node) > MOST_NODES:
        raise GraphError(f"it has {len(graph.node)} nodes; at most {MOST_NODES} are allowed")
    known = {graph.input[0].name, *(tensor.name for tensor in graph.initializer), ""}
    computed: set[str] = set()
    for node in graph.node:
        if node.domain not in DEFAULT_DOMAINS or node.op_type not in ALLOWED:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise GraphError(f"it uses the operator {name[:80]!r}, which is not allowed")
        _check_attributes(node)
        early = [name for name in node.input if name not in known]
        if early:
            raise GraphError(f"{place_of(node)} uses {early[0]!r} before it is computed")
        for name in node.output:
            if name and name in known:
                raise GraphError(f"{place_of(node)} computes {name!r} again")
            known.add(name)
            computed.add(name)
        if not node.output or not node.output[0]:
            raise GraphError(f"{place_of(node)} has no output")
    if graph.output[0].name not in computed - {""}:
        raise GraphError(f"no node computes its output {graph.output[0].name!r}")


def _check_attributes(node: Any) -> None:
    from onnx import AttributeProto

    kinds = (
        AttributeProto.FLOAT, AttributeProto.FLOATS, AttributeProto.INT, AttributeProto.INTS,
        AttributeProto.STRING, AttributeProto.TENSOR,
    )  # fmt: skip
    if len({attribute.name for attribute in node.attribute}) < len(node.attribute):
        raise GraphError(f"{place_of(node)} has two attributes of one name")
    for attribute in node.attribute:
        if attribute.type not in kinds or attribute.ref_attr_name:
            raise GraphError(f"{place_of(node)} has an attribute of a kind that is not allowed")
        if attribute.type == AttributeProto.TENSOR:
            _check_inline(attribute.t, place_of(node))
        if attribute.type == AttributeProto.STRING and attribute.s not in WORDS:
            raise GraphError(f"{place_of(node)} has {attribute.name[:80]} {attribute.s[:80]!r}")
    if node.op_type in WINDOWS:
        _check_window(node)
    parts = integers(node, "num_outputs", [])  # onnx aborts the process if wrong
    if node.op_type == "Split" and parts and parts != [len(node.output)]:
        raise GraphError(f"{place_of(node)} has {len(node.output)} outputs, not {parts[:8]}")
    if any(abs(axis) > MOST_AXES for axis in integers(node, "axis", [])):  # onnx wraps it around
        raise GraphError(f"{place_of(node)} has an axis beyond {MOST_AXES}")
    drops = node.op_type == "Dropout" and any(node.input[2:])
    if drops or any(integers(node, "training_mode", [])):
        raise GraphError(f"{place_of(node)} is in training mode; export it in evaluation mode")


def _check_window(node: Any) -> None:
    """Checks the window of a convolution or a pool: an engine would divide by a step of 0."""
    for name, least in WINDOW_ATTRIBUTES.items():
        numbers = integers(node, name, [])
        if any(not least <= number <= MOST_PIXELS for number in numbers):
            raise GraphError(
                f"{place_of(node)} has {name} {numbers[:8]}; each is {least} to {MOST_PIXELS}"
            )


def _check_weights(graph: Any, weights: Weights) -> None:
    from onnx import TensorProto

    places = {(place.offset, place.length): place for place in weights.places.values()}
    for tensor in graph.initializer:
        place = f"the weight {tensor.name[:80]!r}"
        if tensor.data_location != TensorProto.EXTERNAL:
            _check_inline(tensor, place)
            continue
        if any(tensor.HasField(field) for field in ("raw_data", "segment")) or any(
            len(getattr(tensor, field)) for field in INLINE
        ):
            raise GraphError(f"{place} has values both inside and outside the graph")
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location != WEIGHTS:
            raise GraphError(
                f"{place} lies in {location[:80]!r}; weights may lie only in {WEIGHTS}"
            )
        try:
            span = int(entries["offset"]), int(entries["length"])
        except (KeyError, ValueError) as error:
            raise GraphError(f"{place} has no offset or no length") from error
        if sorted((e.key, e.value) for e in tensor.external_data) != sorted(
            {"location": WEIGHTS, "offset": str(span[0]), "length": str(span[1])}.items()
        ):
            raise GraphError(f"{place} has more than a location, an offset and a length")
        if tensor.data_type not in TensorProto.DataType.values():
            raise GraphError(f"{place} is of an unknown type")
        stored = places.get(span)
        wanted = Place(*span, TensorProto.DataType.Name(tensor.data_type), tuple(tensor.dims))
        if stored != wanted:
            raise GraphError(f"{place} is {wanted}; {WEIGHTS} has {stored or 'nothing'} there")


def _check_inline(tensor: Any, place: str) -> None:
    """Raises GraphError if a tensor inside the graph has not the values that it announces."""
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise GraphError(f"{place} has values outside the graph")
    if tensor.data_type not in [TensorProto.DataType.Value(kind) for kind in TYPES]:
        raise GraphError(f"{place} has values of a type that is not one of {', '.join(TYPES)}")
    if any(dim < 1 for dim in tensor.dims) or math.prod(tensor.dims) > MAX_GRAPH_BYTES:
        raise GraphError(f"{place} has the shape {tuple(tensor.dims)}")
    try:
        numpy_helper.to_array(tensor)
    except Exception as error:  # it raises many kinds, which depend on the field that is wrong
        raise GraphError(f"{place} is damaged: {error}") from error


def fix_sizes(model: Any, batch: int | str, size: int) -> Any:
    """Returns a copy whose input is (batch, 3, size, size); ``batch`` may be a name.

    Raises GraphError if the input has another shape or type.
    """
    import onnx

    images = model.graph.input[0]
    of_tensor = images.type.tensor_type
    if of_tensor.elem_type != onnx.TensorProto.FLOAT or not of_tensor.HasField("shape"):
        raise GraphError("its input is not a float32 tensor of known rank")
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in of_tensor.shape.dim]
    if len(dims) == 4 and dims[1] != 3 and dims[3] == 3:
        raise GraphError(
            f"its input is {named(dims)}, channels last; export it with channels first, "
            f"(batch, 3, {size}, {size})"
        )
    if len(dims) != 4 or dims[1] != 3:
        raise GraphError(f"its input is {named(dims)} instead of (batch, 3, {size}, {size})")
    if dims[0] is not None:
        raise GraphError(
            f"its batch size is fixed at {dims[0]}; export it with a dynamic batch dimension"
        )
    if any(side not in (None, size) for side in dims[2:]):
        raise GraphError(f"its images are {dims[3]}×{dims[2]} pixels, not {size}×{size}")
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]  # what a graph says of its own shapes is not evidence
    wanted = fixed.graph.input[0].type.tensor_type.shape
    for dim, value in zip(wanted.dim, (batch, 3, size, size), strict=True):
        dim.Clear()
        if isinstance(value, str):
            dim.dim_param = value
        else:
            dim.dim_value = value
    output = fixed.graph.output[0].type.tensor_type
    output.ClearField("shape")
    return fixed


def infer_shapes(fixed: Any) -> dict[str, Shape]:
    """Returns the shape of each tensor of a graph whose input has a fixed shape.

    Raises GraphError if a shape contradicts another, or cannot be known before the graph runs.
    """
    batch = fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    return infer(fixed.graph, fixed.opset_import[0].version, batch)


def named(shape: Any) -> str:
    return "(" + ", ".join("?" if dim is None else str(dim) for dim in shape) + ")"
