from typing import Any

import numpy as np
import pytest
from onnx import helper

from gpq.errors import GraphError
from gpq.model import conditions

IMAGES = (2, 6, 8, 8)


def fits(
    kind: str,
    inputs: list[Any],
    output: conditions.Shape = IMAGES,
    known: dict[int, list[int]] | None = None,
    **attributes: Any,
) -> bool:
    """Returns whether a node may have inputs of these shapes, the first of which is IMAGES."""
    node = helper.make_node(kind, ["x"] * (1 + len(inputs)), ["y"], **attributes)
    values = [np.array(known[n]) if known and n in known else None for n in range(1 + len(inputs))]
    try:
        conditions.check(node, [IMAGES, *inputs], [output], values, "the node")
    except GraphError as error:
        assert "the node cannot make" in str(error)
        assert "its inputs don't fit together" in str(error)
        return False
    return True


@pytest.mark.parametrize(
    ("inputs", "attributes", "expected"),
    [
        ([(4, 6, 3, 3)], {}, True),
        ([(4, 6, 3, 3), (4,)], {"kernel_shape": [3, 3]}, True),
        ([(4, 3, 3, 3)], {"group": 2}, True),
        ([(4, 6, 3, 3), None], {}, True),
        ([(4, 6, 3, 3), (1,)], {}, False),
        ([(4, 6, 3, 3), ()], {}, False),
        ([(4, 6, 3, 3)], {"kernel_shape": [5, 5]}, False),
        ([(4, 3, 3, 3)], {}, False),
        ([(3, 3, 3, 3)], {"group": 2}, False),
        ([(4, 6, 3)], {}, False),
    ],
)
def test_a_convolution_has_filters_of_its_channels(
    inputs: list[Any], attributes: dict[str, Any], expected: bool
) -> None:
    assert fits("Conv", inputs, **attributes) is expected


@pytest.mark.parametrize("kind", ["BatchNormalization", "InstanceNormalization"])
def test_statistics_are_of_each_channel(kind: str) -> None:
    assert fits(kind, [(6,), (6,)])
    assert not fits(kind, [(6,), (1,)])
    assert not fits(kind, [(6, 1), (6,)])


def test_a_normalisation_of_groups_has_a_scale_for_each_channel_or_group() -> None:
    assert fits("GroupNormalization", [(6,), (6,)], num_groups=3)
    assert fits("GroupNormalization", [(3,), (3,)], num_groups=3)
    assert not fits("GroupNormalization", [(2,), (2,)], num_groups=3)
    assert not fits("GroupNormalization", [(6,), (6,)], num_groups=4)
    assert not fits("GroupNormalization", [(6,), (6,)], num_groups=0)


@pytest.mark.parametrize("kind", ["LayerNormalization", "PRelu", "RMSNormalization"])
def test_a_scale_spreads_over_the_images(kind: str) -> None:
    assert fits(kind, [(8,)])
    assert fits(kind, [(6, 1, 1)])
    assert not fits(kind, [(7,)])
    assert not fits(kind, [(5, 2, 6, 8, 8)])


def test_a_product_has_a_bias_of_its_features() -> None:
    assert fits("Gemm", [(9, 4), (4,)], (2, 4))
    assert fits("Gemm", [(9, 4)], (2, 4))
    assert not fits("Gemm", [(9, 4), (7,)], (2, 4))


def test_limits_are_single_numbers() -> None:
    assert fits("Clip", [None, ()])
    assert not fits("Clip", [(3,)])


@pytest.mark.parametrize("kind", conditions.REARRANGING)
def test_values_are_neither_lost_nor_made(kind: str) -> None:
    assert fits(kind, [], (12, 64))
    assert not fits(kind, [], (12, 65))


def test_only_rows_that_exist_are_gathered() -> None:
    for row, expected in ((5, True), (-6, True), (6, False), (-7, False)):
        assert fits("Gather", [(2,)], known={1: [0, row]}, axis=1) is expected
    assert fits("Gather", [(2,)], axis=1)  # it depends on the pixels, and the engine checks it
    assert not fits("Gather", [(2,)], axis=9)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_a_border_is_smaller_than_what_it_is_made_of(mode: str) -> None:
    for pad, expected in ((0, True), (7, True), (8, False), (-1, False)):
        pads = [0, 0, pad, 0, 0, 0, 0, 0]
        assert fits("Pad", [(8,)], known={1: pads}, mode=mode) is expected
        axes = {1: [pad, 0], 3: [-1]}
        assert fits("Pad", [(2,), None, (1,)], known=axes, mode=mode) is expected
    assert not fits("Pad", [(8,)], mode=mode)
    assert not fits("Pad", [(2,), None, (1,)], known={1: [0, 0], 3: [9]}, mode=mode)
    assert fits("Pad", [(8,)], known={1: [0, 0, 99, 0, 0, 0, 0, 0]})
