"""The compiled kernel's functions and structures."""

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int32, c_size_t, c_void_p
from functools import cache

from gpq.native import loader

FILE = loader.file(__file__)
CONVOLVE, HALVE, MEAN, MOST = range(4)  # kinds of steps, as in src/network.h


class Map(ctypes.Structure):
    """As in src/network.h."""

    _fields_ = (("side", c_int32), ("channels", c_int32))


class Step(ctypes.Structure):
    """As in src/network.h."""

    _fields_ = (
        ("kind", c_int32),
        ("source", c_int32),
        ("to", c_int32),
        ("plus", c_int32),
        ("pool", c_int32),
        ("weights", c_void_p),
        ("scale", c_void_p),
        ("shift", c_void_p),
    )


class Last(ctypes.Structure):
    """As in src/network.h."""

    _fields_ = (("features", c_int32), ("made", c_int32), ("weights", c_void_p), ("bias", c_void_p))


@cache
def missing() -> str:
    """Why the kernel cannot be used here, or nothing where it can."""
    if reason := loader.missing(FILE, kernel):
        return reason
    return "" if instructions() else "this processor has neither AVX-512 nor AVX2"


@cache
def kernel() -> ctypes.CDLL:
    """Raises OSError or AttributeError where it is not there, of another machine or version."""
    functions: list[loader.Function] = [
        ("gpq_instructions", c_char_p, [c_char_p]),
        (
            "gpq_network",
            c_void_p,
            [POINTER(Map), c_size_t, POINTER(Step), c_size_t, c_int, POINTER(Last), c_char_p],
        ),
        ("gpq_network_free", None, [c_void_p]),
        ("gpq_network_run", c_int, [c_void_p, c_void_p, c_int, c_void_p, c_int]),
    ]
    return loader.load(FILE, {"gpq_step_layout": Step}, functions)


def instructions(name: str = "") -> str:
    """The fastest set of instructions of avx512 and avx2 that there is, or the one called
    ``name``; "" where there is none."""
    found: str = kernel().gpq_instructions(name.encode()).decode()
    return found
