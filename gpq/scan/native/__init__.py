"""The scan in C++: exact, with AVX-512, AVX2, NEON or none of them, chosen at run time."""

from gpq.scan.native.library import instructions, missing
from gpq.scan.native.scanner import NativeScanner

__all__ = ["NativeScanner", "describe", "missing"]


def describe() -> str:
    """What it would use."""
    return f"with {instructions()} instructions"
