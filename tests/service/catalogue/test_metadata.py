import pytest

from service.catalogue import metadata


@pytest.mark.parametrize("depth", [1, 63, 64, 65, 200])
def test_depth_is_counted_in_objects_and_arrays(depth: int) -> None:
    value: object = {} if depth == 1 else []
    for level in range(depth - 1):
        value = {"a": value} if level % 2 else [value]
    assert metadata._deeper_than(value, 64) is (depth > 64)
