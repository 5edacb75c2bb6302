import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from gpq.errors import ArtifactError
from gpq.model import weights
from gpq.model.weights import Place
from harness.models import SHIPPED

TENSORS = {
    "F.a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "F.half": np.array([0.5, -2], np.float16),
    "F.long": np.array([-(2**40), 2**40]),
    "F.int": np.array(7, np.int32),
    "Z": np.eye(2, dtype=np.float32),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "model.safetensors"
    made.write_bytes(save(TENSORS))
    return made


def write(path: Path, head: object, body: bytes) -> None:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_tensors_are_read_with_their_types(path: Path) -> None:
    found = weights.read(path)
    assert found.tensors.keys() == found.places.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].shape == tensor.shape
        assert (found.tensors[name] == tensor).all()
        assert not found.tensors[name].flags.writeable


def test_a_place_is_where_the_bytes_of_a_tensor_stand(path: Path) -> None:
    data = path.read_bytes()
    for name, place in weights.read(path).places.items():
        assert data[place.offset : place.offset + place.length] == TENSORS[name].tobytes()
        assert place.shape == TENSORS[name].shape
    kinds = {name: place.kind for name, place in weights.read(path).places.items()}
    assert kinds == {
        "F.a": "FLOAT", "F.half": "FLOAT16", "F.long": "INT64", "F.int": "INT32", "Z": "FLOAT",
    }  # fmt: skip


def test_the_tensors_of_the_network_lose_their_prefix(path: Path) -> None:
    network = weights.read(path).network()
    assert network.keys() == {"a", "half", "long", "int"}
    assert (network["a"] == TENSORS["F.a"]).all()


def test_remarks_in_the_file_are_no_tensors(path: Path) -> None:
    path.write_bytes(save(TENSORS, metadata={"made by": "a test"}))
    assert weights.read(path).tensors.keys() == TENSORS.keys()


def test_the_shipped_weights_fill_their_file() -> None:
    path = SHIPPED / weights.WEIGHTS
    places = sorted(weights.read(path).places.values(), key=lambda place: place.offset)
    ends = [place.offset + place.length for place in places]
    assert [place.offset for place in places[1:]] == ends[:-1]
    assert ends[-1] == path.stat().st_size
    assert all(isinstance(place, Place) for place in places)


@pytest.mark.parametrize(
    "bad", [np.float32("nan"), np.float32("inf"), np.float16("-inf"), np.float16("nan")]
)
def test_values_that_are_no_numbers_are_refused(bad: np.floating, path: Path) -> None:
    path.write_bytes(save({"F.a": np.array([1, bad], bad.dtype)}))
    with pytest.raises(ArtifactError, match=r"safetensors: 'F\.a' has a value that is not a fini"):
        weights.read(path)


@pytest.mark.parametrize("kind", [np.float64, np.uint8, np.bool_, np.int16])
def test_types_that_not_every_engine_reads_are_refused(kind: type, path: Path) -> None:
    path.write_bytes(save({"F.a": np.zeros(2, kind)}))
    with pytest.raises(ArtifactError, match=r"'F\.a' is \w+; supported are F32, F16, I64, I32"):
        weights.read(path)


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model\.safetensors: No such file"):
        weights.read(tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        weights.read(tmp_path)


def one(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"F.a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


DAMAGES: dict[str, tuple[object, bytes]] = {
    "not json": (b"{", bytes(8)),
    "no object": ([1], bytes(8)),
    "no fields": ({"F.a": {}}, bytes(8)),
    "unknown type": (one("F99"), bytes(8)),
    "too short": (one(), bytes(7)),
    "too long": (one(), bytes(9)),
    "other length": (one(offsets=(0, 4)), bytes(4)),
    "negative": (one(offsets=(-8, 0)), bytes(8)),
    "backwards": (one(offsets=(8, 0)), bytes(8)),
    "negative shape": (one(shape=(-2,)), bytes(8)),
    "huge shape": (one(shape=(2**40, 2**40)), bytes(8)),
    "overlapping": ({**one(), "F.b": one()["F.a"]}, bytes(8)),
    "gap": ({**one(), "F.b": one(offsets=(16, 24))["F.a"]}, bytes(24)),
    "text as a shape": (one(shape="22"), bytes(8)),
    "not UTF-8": (b'{"\xff":1}', bytes(8)),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_header_is_refused(name: str, path: Path) -> None:
    write(path, *DAMAGES[name])
    with pytest.raises(ArtifactError, match=r"model\.safetensors: "):
        weights.read(path)


@pytest.mark.parametrize(
    "data", [b"", b"1234567", (2**63).to_bytes(8, "little"), (2**40).to_bytes(8, "little") + b"{}"]
)
def test_a_damaged_file_is_refused(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model\.safetensors: "):
        weights.read(path)


def test_a_tensor_without_values_is_refused(path: Path) -> None:
    path.write_bytes(save({"F.a": np.zeros((0, 3), np.float32), "Z": TENSORS["Z"]}))
    with pytest.raises(ArtifactError, match=r"'F\.a' has the shape \(0, 3\), and no values"):
        weights.read(path)
