"""Our C++ libraries, by ctypes: they are plain C outside, and calls let other threads run."""

import ctypes
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

Function = tuple[str, Any, list[Any]]  # name, type of the result, types of the arguments


def file(module: str) -> Path:
    """That which stands beside the module whose ``__file__`` is given."""
    return Path(module).parent / f"_kernel{sysconfig.get_config_var('EXT_SUFFIX')}"


def missing(file: Path, load: Callable[[], object]) -> str:
    """Why ``load`` of the file cannot be, or nothing where it can."""
    if not file.is_file():
        return "the C++ kernel was not built when gpq was installed; it needs a C++ compiler"
    try:
        load()
    except (OSError, AttributeError) as error:
        return f"the C++ kernel cannot be loaded: {error}"
    return ""


def load(
    file: Path, size_of: str, structure: type[ctypes.Structure], functions: list[Function]
) -> ctypes.CDLL:
    """size_of: the function that returns the size of ``structure`` there. Raises OSError or
    AttributeError where the library is not there, of another machine or version."""
    library = ctypes.CDLL(str(file))
    if getattr(library, size_of)() != ctypes.sizeof(structure):
        raise OSError(f"{file.name} is of another version; install gpq again")
    for name, result, arguments in functions:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
