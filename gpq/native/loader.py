"""Loads the compiled C++ libraries through ctypes, which releases the GIL during a call."""

import ctypes
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Function = tuple[str, Any, list[Any]]  # name, type of the result, types of the arguments
Place = tuple[int, int]  # offset and size of a field, in bytes


class _Field(ctypes.Structure):
    """One element of a layout, see src/layout.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("offset", ctypes.c_size_t),
        ("size", ctypes.c_size_t),
    )


def file(module: str) -> Path:
    """Returns the path of the library that lies beside the module whose ``__file__`` is given."""
    return Path(module).parent / f"_kernel{sysconfig.get_config_var('EXT_SUFFIX')}"


def missing(file: Path, load: Callable[[], object]) -> str:
    """Returns the reason why ``load`` cannot load the file, or an empty string if it can."""
    if not file.is_file():
        return "the C++ kernel was not built when gpq was installed; it needs a C++ compiler"
    try:
        load()
    except (OSError, AttributeError) as error:
        return f"the C++ kernel cannot be loaded: {error}"
    return ""


def load(
    file: Path, layouts: Mapping[str, type[ctypes.Structure]], functions: list[Function]
) -> ctypes.CDLL:
    """Loads a library, checks its structures and declares the types of its functions.

    ``layouts``: the structure that each layout function of the library describes.
    Raises OSError if the file is missing, was built for another machine or has another layout of
    a structure, and AttributeError if it lacks a function.
    """
    library = ctypes.CDLL(str(file))
    for name, structure in layouts.items():
        describe = getattr(library, name)
        describe.restype = ctypes.POINTER(_Field)
        if difference := _difference(structure, describe()):
            raise OSError(f"{file.name} is of another version; install gpq again: {difference}")
    for name, result, arguments in functions:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _difference(structure: type[ctypes.Structure], layout: Any) -> str:
    """Describes the first field that differs between a structure and its layout in a library."""
    there: dict[str, Place] = {}
    while (field := layout[len(there)]).name is not None:
        there[field.name.decode()] = field.offset, field.size
    here: dict[str, Place] = {}
    for name, *_ in structure._fields_:
        member = getattr(structure, name)
        here[name] = member.offset, member.size
    for name in there | here:
        if here.get(name) != there.get(name):
            return (
                f"the field {structure.__name__}.{name} is {_place(there.get(name))} in the "
                f"library but {_place(here.get(name))} in Python"
            )
    if ctypes.sizeof(structure) != field.size:
        return (
            f"the structure {structure.__name__} has {field.size} bytes in the library but "
            f"{ctypes.sizeof(structure)} in Python"
        )
    return ""


def _place(place: Place | None) -> str:
    return "missing" if place is None else f"{place[1]} bytes at offset {place[0]}"
