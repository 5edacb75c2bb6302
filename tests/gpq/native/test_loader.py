"""A library whose structures differ from their mirrors in Python is refused, by field."""

import ctypes
from pathlib import Path

import pytest

from gpq.native import loader
from gpq.scan.native import library, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
FIELDS = [
    pytest.param(name, n, id=f"{structure.__name__}.{structure._fields_[n][0]}")
    for name, structure in library.LAYOUTS.items()
    for n in range(len(structure._fields_))
]


def load(name: str, fields: list[tuple]) -> None:
    """Loads the scan kernel with other fields in place of a mirrored structure's."""
    changed = type(library.LAYOUTS[name].__name__, (ctypes.Structure,), {"_fields_": fields})
    loader.load(library.FILE, {**library.LAYOUTS, name: changed}, [])


def test_every_structure_that_mirrors_one_of_the_kernel_is_compared() -> None:
    mirrors = [
        value
        for value in vars(library).values()
        if isinstance(value, type) and issubclass(value, ctypes.Structure)
    ]
    assert len(mirrors) == 2
    assert set(library.LAYOUTS.values()) == set(mirrors)
    loader.load(library.FILE, library.LAYOUTS, [])


@pytest.mark.parametrize(("name", "n"), FIELDS)
def test_a_field_that_differs_is_named(name: str, n: int) -> None:
    structure = library.LAYOUTS[name]
    fields = list(structure._fields_)
    field, kind = fields[n]
    place, prefix = getattr(structure, field), "is of another version; install gpq again: the field"
    there = f"{prefix} {structure.__name__}.{field} is {place.size} bytes at offset {place.offset} "
    moved = [*fields[:n], ("pad", ctypes.c_uint64), *fields[n:]]
    with pytest.raises(OSError, match=f"{there}in the library but {place.size} bytes at offset"):
        load(name, moved)
    wider = [*fields[:n], (field, kind * 2), *fields[n + 1 :]]
    with pytest.raises(OSError, match=f"{there}in the library but {2 * place.size} bytes at"):
        load(name, wider)
    with pytest.raises(OSError, match=f"{there}in the library but missing in Python"):
        load(name, [*fields[:n], *fields[n + 1 :]])


@pytest.mark.parametrize("name", library.LAYOUTS)
def test_a_field_that_the_library_lacks_is_named(name: str) -> None:
    fields = [*library.LAYOUTS[name]._fields_, ("extra", ctypes.c_int)]
    with pytest.raises(OSError, match=r"\.extra is missing in the library but 4 bytes at offset"):
        load(name, fields)


@pytest.mark.parametrize("structure", library.LAYOUTS.values(), ids=lambda s: s.__name__)
def test_a_structure_of_another_size_is_refused(
    structure: type[ctypes.Structure], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = ctypes.sizeof(structure)
    monkeypatch.setattr(loader.ctypes, "sizeof", lambda s: 8 if s is structure else 99)
    layouts = {n: s for n, s in library.LAYOUTS.items() if s is structure}
    with pytest.raises(OSError, match=f"has {size} bytes in the library but 8 in Python"):
        loader.load(library.FILE, layouts, [])


def test_a_library_without_a_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="gpq_no_layout"):
        loader.load(library.FILE, {"gpq_no_layout": library.TailStruct}, [])
    with pytest.raises(OSError, match="missing"):
        loader.load(tmp_path / "missing", {}, [])
