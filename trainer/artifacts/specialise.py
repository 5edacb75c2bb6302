"""Fixes the sizes in a graph that was exported for images of any size.

Exporters compute sizes while the network runs: they take the shape of a tensor, divide it, and
reshape by the result. Here the graph runs twice, with batches of two sizes. What is equal in both
runs and does not depend on pixels becomes a constant. Afterwards only the batch size is open.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpq.engine import onnxruntime_network
from gpq.errors import GraphError

BATCHES = (2, 3)
MAX_CONSTANT_BYTES = 64 * 2**20
BATCH = "gpq.batch"  # a list of one number, the batch size
QUIET = 3  # of ONNX Runtime's levels of logging: errors only
OF_SHAPES = ("Shape", "Size")  # operators whose output does not depend on pixels


def specialise(model: Any, size: int) -> Any:
    """Returns the graph with constant sizes.

    ``model``: an onnx.ModelProto whose input is (batch, 3, size, size). Raises GraphError if ONNX
    Runtime cannot run it.
    """
    import onnx
    from onnx import numpy_helper

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    first, second = _runs(fixed, _independent(graph), size)
    users = _users(graph)
    constants: dict[str, NDArray[Any]] = {}
    lists: dict[str, NDArray[Any]] = {}  # of sizes; -1 stands for the batch size
    for name, value in first.items():
        other = second[name]
        if value.shape != other.shape or value.nbytes > MAX_CONSTANT_BYTES:
            continue
        if np.array_equal(value, other):
            constants[name] = value
        elif value.ndim == 1 and value.dtype == np.int64:
            open_ = np.flatnonzero(value != other)
            only_reshape = all(node.op_type == "Reshape" and at == 1 for node, at in users[name])
            if len(open_) == 1 and only_reshape:
                constants[name] = np.where(value != other, -1, value)
            elif all((value[n], other[n]) == BATCHES for n in open_):
                lists[name] = np.where(value != other, -1, value)
    nodes = [node for node in graph.node if not {*constants, *lists}.issuperset(node.output)]
    made = list(_lists(lists, graph.input[0].name)) + nodes
    del graph.node[:]
    graph.node.extend(_needed(made, graph.output[0].name))
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items() if name in used
    )
    return fixed


def _independent(graph: Any) -> list[str]:
    """Returns the values that depend on no pixel, but perhaps on the sizes of tensors."""
    pixels = {graph.input[0].name}
    independent = []
    for node in graph.node:
        if node.op_type not in OF_SHAPES and not pixels.isdisjoint(node.input):
            pixels.update(node.output)
        else:
            independent += [name for name in node.output if name]
    return independent


def _runs(model: Any, names: list[str], size: int) -> list[dict[str, NDArray[Any]]]:
    """Returns the values of ``names`` in a run with each of the BATCHES."""
    import onnx

    onnxruntime = onnxruntime_network.library()
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    random = np.random.default_rng(0)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    if not names:
        return [{} for _ in BATCHES]
    try:
        session = onnxruntime.InferenceSession(
            probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = []
        for batch in BATCHES:
            images = random.standard_normal((batch, 3, size, size), dtype=np.float32)
            found.append(session.run(names, {probe.graph.input[0].name: images}))
    except Exception as error:  # ONNX Runtime raises many kinds, which share no class of its own
        line = " ".join(str(error).split())[:300]
        raise GraphError(f"ONNX Runtime cannot run it: {line}") from error
    return [dict(zip(names, values, strict=True)) for values in found]


def _users(graph: Any) -> dict[str, list[tuple[Any, int]]]:
    users: dict[str, list[tuple[Any, int]]] = {}
    for node in graph.node:
        for at, name in enumerate(node.input):
            users.setdefault(name, []).append((node, at))
    for node in graph.node:
        for name in node.output:
            users.setdefault(name, [])
    return users


def _lists(lists: dict[str, NDArray[Any]], images: str) -> Iterable[Any]:
    """Yields nodes that compute lists of sizes from the batch size alone."""
    from onnx import helper

    if not lists:
        return
    yield helper.make_node("Shape", [images], [f"{BATCH}.shape"], name=f"{BATCH}.shape")
    yield helper.make_node("Constant", [], [f"{BATCH}.first"], value_ints=[0])
    yield helper.make_node(
        "Gather", [f"{BATCH}.shape", f"{BATCH}.first"], [BATCH], name=BATCH, axis=0
    )
    for name, sizes in lists.items():
        parts = []
        for n, value in enumerate(sizes.tolist()):
            parts.append(BATCH if value == -1 else f"{name}.{n}")
            if value != -1:
                yield helper.make_node("Constant", [], [parts[-1]], value_ints=[value])
        yield helper.make_node("Concat", parts, [name], name=name, axis=0)


def _needed(nodes: list[Any], output: str) -> list[Any]:
    """Returns the nodes that the output depends on, in their order."""
    wanted = {output}
    needed = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            needed.append(node)
    return needed[::-1]
