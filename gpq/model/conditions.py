"""Checks the shapes of the inputs of operators where ONNX's inference takes them as they are.

Engines differ in what they make of inputs that don't fit together: an error, or other values. A
Reshape to another number of values makes OpenVINO read beyond its memory, and the process ends.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpq.errors import GraphError

Shape = tuple[int, ...]
Inputs = list[Shape | None]
Known = list[Any]  # arrays of integers, or None


def check(node: Any, inputs: Inputs, outputs: list[Shape], known: Known, place: str) -> None:
    """Raises GraphError if the inputs of a node don't fit together.

    ``inputs``: their shapes, None for those that the node lacks. ``known``: their values, None for
    those that are not known before the network runs. ``place``: names the node.
    """
    condition = CONDITIONS.get(node.op_type)
    try:
        fits = condition is None or condition(node, inputs, outputs, known)
    except (IndexError, ValueError):  # an axis that doesn't exist, or shapes of other ranks
        fits = False
    if not fits:
        given = ", ".join(str(shape) for shape in inputs if shape is not None)
        raise GraphError(
            f"{place} cannot make {outputs[0]} of {given}: its inputs don't fit together"
        )


def integers(node: Any, name: str, default: list[int]) -> list[int]:
    """Returns the integers of an attribute, or the default if a node lacks it."""
    from onnx import AttributeProto

    for attribute in node.attribute:
        if attribute.name == name:
            return list(attribute.ints if attribute.type == AttributeProto.INTS else [attribute.i])
    return default


def _first(inputs: Inputs) -> Shape:
    return inputs[0] or ()


def _others(inputs: Inputs) -> list[Shape]:
    """Returns the shapes of the inputs after the first that a node has."""
    return [shape for shape in inputs[1:] if shape is not None]


def _rearranged(node: Any, inputs: Inputs, outputs: list[Shape], known: Known) -> bool:
    """The outputs have all values of the input."""
    return math.prod(_first(inputs)) == sum(map(math.prod, outputs))


def _convolution(node: Any, inputs: Inputs, outputs: list[Shape], known: Known) -> bool:
    images, (filters, *biases) = _first(inputs), _others(inputs)
    (groups,) = integers(node, "group", [1])
    return (
        len(images) == len(filters)
        and images[1] == filters[1] * groups
        and filters[0] % groups == 0
        and all(bias == (filters[0],) for bias in biases)
        and integers(node, "kernel_shape", list(filters[2:])) == list(filters[2:])
    )


def _of_channels(node: Any, inputs: Inputs, outputs: list[Shape], known: Known) -> bool:
    """Scales, biases and statistics have a value for each channel, or for each group of them."""
    channels = (*_first(inputs), 1, 1)[1]
    (groups,) = integers(node, "num_groups", [channels])
    return (
        groups > 0
        and channels % groups == 0
        and all(shape in ((channels,), (groups,)) for shape in _others(inputs))
    )


def _spread(node: Any, inputs: Inputs, outputs: list[Shape], known: Known) -> bool:
    """The inputs after the first are repeated to the shape of the output."""
    return all(np.broadcast_shapes(outputs[0], shape) == outputs[0] for shape in _others(inputs))


def _product(node: Any, inputs: Inputs, outputs: list[Shape], known: Known) -> bool:
    return _spread(node, [inputs[0], *inputs[2:]], outputs, known)


def _limits(node: Any, inputs: Inputs, outputs: list[Shape], known: Known) -> bool:
    return all(math.prod(shape) == 1 for shape in _others(inputs))


def _gathered(node: Any, inputs: Inputs, outputs: list[Shape], known: Known) -> bool:
    (axis,) = integers(node, "axis", [0])
    length, indices = _first(inputs)[axis], known[1]
    return indices is None or bool(((indices >= -length) & (indices < length)).all())


def _padded(node: Any, inputs: Inputs, outputs: list[Shape], known: Known) -> bool:
    """A border that is made of the values inside is smaller than what it is made of."""
    modes = [attribute.s for attribute in node.attribute if attribute.name == "mode"]
    if modes in ([], [b"constant"]):
        return True
    shape, pads = _first(inputs), known[1]
    axes = range(len(shape)) if len(inputs) < 4 else known[3]
    if pads is None or axes is None or pads.shape != (2 * len(axes),):
        return False
    sides = [shape[axis] for axis in axes] * 2
    return all(0 <= pad < max(side, 1) for pad, side in zip(pads, sides, strict=True))


REARRANGING = (
    "Flatten", "Identity", "Reshape", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
CONDITIONS: dict[str, Callable[[Any, Inputs, list[Shape], Known], bool]] = {
    **dict.fromkeys(REARRANGING, _rearranged),
    "BatchNormalization": _of_channels,
    "Clip": _limits,
    "Conv": _convolution,
    "Gather": _gathered,
    "Gemm": _product,
    "GroupNormalization": _of_channels,
    "InstanceNormalization": _of_channels,
    "LayerNormalization": _spread,
    "PRelu": _spread,
    "Pad": _padded,
    "RMSNormalization": _spread,
}
