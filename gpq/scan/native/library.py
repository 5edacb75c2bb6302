"""The functions and structures of the compiled kernel."""

import ctypes
from ctypes import (
    POINTER,
    c_char_p,
    c_float,
    c_int,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import cache

from gpq.errors import ScanError
from gpq.native import loader

FILE = loader.file(__file__)
NO_MEMORY, NOT_FINITE = 1, 2  # results of gpq_search; 0 is success


class TailStruct(ctypes.Structure):
    """Mirrors ``Tail`` of src/search.h."""

    _fields_ = (("blocks", c_void_p), ("first_row", c_uint32), ("count", c_uint32))


class RequestStruct(ctypes.Structure):
    """Mirrors ``Request`` of src/search.h."""

    _fields_ = (
        ("segments", POINTER(c_void_p)),
        ("segment_count", c_size_t),
        ("tails", POINTER(TailStruct)),
        ("tail_count", c_size_t),
        ("M", c_int),
        ("luts", c_void_p),
        ("queries", c_size_t),
        ("k", c_size_t),
        ("part", c_size_t),
        ("parts", c_size_t),
        ("removed", c_void_p),
        ("mask", c_void_p),
        ("mask_rows", c_uint64),
        ("mask_from", c_uint64),
        ("has_after", c_int),
        ("after_score", c_float),
        ("after_row", c_int64),
        ("rows", c_void_p),
        ("scores", c_void_p),
    )


# The functions of the kernel that describe the structures, see loader.load.
LAYOUTS: dict[str, type[ctypes.Structure]] = {
    "gpq_request_layout": RequestStruct,
    "gpq_tail_layout": TailStruct,
}


@cache
def missing() -> str:
    """Returns the reason why the native engine cannot be used, or an empty string if it can."""
    return loader.missing(FILE, kernel)


@cache
def kernel() -> ctypes.CDLL:
    """Loads the kernel once.

    Raises OSError or AttributeError if it is missing, or of another machine or version.
    """
    functions: list[loader.Function] = [
        ("gpq_filter", c_char_p, [c_char_p]),
        ("gpq_search", c_int, [POINTER(RequestStruct), c_char_p]),
        ("gpq_segment_build", c_void_p, [c_void_p, c_void_p, c_size_t, c_int, c_int]),
        ("gpq_segment_free", None, [c_void_p]),
        ("gpq_trim", None, []),
        ("gpq_segment_bytes", c_size_t, [c_void_p]),
        ("gpq_segment_codes_of", None, [c_void_p, c_void_p, c_size_t, c_void_p]),
    ]
    return loader.load(FILE, LAYOUTS, functions)


def instructions(name: str = "") -> str:
    """Returns the instruction set ``name``, or by default the fastest one.

    Raises ScanError if this machine or this build lacks it.
    """
    found: str = kernel().gpq_filter(name.encode()).decode()
    if not found:
        raise ScanError(f"this machine or this build lacks the instruction set {name!r}")
    return found
