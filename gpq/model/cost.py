"""Computes what a network needs from its graph, and refuses too much."""

import math
from dataclasses import dataclass
from typing import Any

from gpq.errors import GraphError
from gpq.model.conditions import Shape, integers

BATCHES = (1, 2, 4, 8, 16, 32)  # sizes that engines run; larger ones gain little on a CPU
MOST_LIVE_VALUES = 2**27  # of all tensors that are needed at the same time: 512 MiB
MOST_MULTIPLICATIONS = 400_000_000_000  # for one image; a ViT-L at 336 pixels has 190 billion
MOST_TOUCHED = 20_000_000_000  # values that operators read and write, for one image


@dataclass(frozen=True)
class Cost:
    """What a network needs for one image.

    ``values``: numbers in all tensors that are needed at the same time, without weights.
    ``multiplications``: of its convolutions, pools and matrix products.
    """

    values: int
    multiplications: int


def cost_of(graph: Any, shapes: dict[str, Shape], batch: int) -> Cost:
    weights = {tensor.name for tensor in graph.initializer}
    last_use = {name: n for n, node in enumerate(graph.node) for name in node.input}
    live = most = math.prod(shapes[graph.input[0].name])
    multiplications = touched = 0
    for n, node in enumerate(graph.node):
        made = sum(math.prod(shapes[name]) for name in node.output if name)
        live += made
        most = max(most, live)
        ended = {name for name in node.input if name not in weights and last_use[name] == n}
        live -= sum(math.prod(shapes[name]) for name in ended if name)
        multiplications += _multiplications(node, shapes)
        touched += made + sum(math.prod(shapes[name]) for name in node.input if name)
    if most > MOST_LIVE_VALUES * batch:
        raise GraphError(
            f"it needs {most} values at the same time for {batch} images; at most "
            f"{MOST_LIVE_VALUES} for each are allowed"
        )
    for count, what, allowed in (
        (multiplications, "multiplications", MOST_MULTIPLICATIONS),
        (touched, "values that its operators read and write", MOST_TOUCHED),
    ):
        if count > allowed * batch:
            raise GraphError(
                f"it needs {count} {what} for {batch} images; at most {allowed} for each are "
                "allowed"
            )
    return Cost(most, multiplications)


def check_growth(costs: list[Cost]) -> None:
    one = costs[0]
    for batch, cost in zip(BATCHES, costs, strict=True):
        if cost.values > batch * one.values or cost.multiplications > batch * one.multiplications:
            raise GraphError(
                f"a batch of {batch} images needs more than {batch} times as much memory or time "
                "as one image"
            )


def _multiplications(node: Any, shapes: dict[str, Shape]) -> int:
    if node.op_type == "Conv":  # an output value is a product with one filter (C/group, kernel)
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type in ("AveragePool", "MaxPool"):
        return math.prod(shapes[node.output[0]]) * math.prod(integers(node, "kernel_shape", []))
    if node.op_type in ("MatMul", "Gemm"):
        left = shapes[node.input[0]]
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        inner = left[0] if turned else left[-1]
        return math.prod(shapes[node.output[0]]) * inner
    return 0
